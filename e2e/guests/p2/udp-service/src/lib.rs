//! A service: receives datagrams at the workload's 127.0.0.1:7000 and sends each back to whom it is from.

wit_bindgen::generate!({
    inline: "
        package e2e:udp-service;

        world guest {
            import wasi:sockets/instance-network@0.2.12;
            import wasi:sockets/udp-create-socket@0.2.12;
            export wasi:cli/run@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::cli::run::Guest;
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasi::sockets::udp::OutgoingDatagram;
use wasi::sockets::udp_create_socket::create_udp_socket;

struct Service;

impl Guest for Service {
    fn run() -> Result<(), ()> {
        serve().map_err(drop)
    }
}

fn serve() -> Result<(), ErrorCode> {
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: 7000,
        address: (127, 0, 0, 1),
    });
    socket.start_bind(&instance_network(), address)?;
    socket.finish_bind()?;
    let (incoming, outgoing) = socket.stream(None)?;
    loop {
        incoming.subscribe().block();
        let mut answers: Vec<OutgoingDatagram> = incoming
            .receive(64)?
            .into_iter()
            .map(|datagram| OutgoingDatagram {
                data: datagram.data,
                remote_address: Some(datagram.remote_address),
            })
            .collect();
        while !answers.is_empty() {
            let room = outgoing.check_send()? as usize;
            if room == 0 {
                outgoing.subscribe().block();
                continue;
            }
            let sent = outgoing.send(&answers[..room.min(answers.len())])?;
            answers.drain(..sent as usize);
        }
    }
}

export!(Service);
