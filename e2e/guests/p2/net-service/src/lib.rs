//! A service: listens on the workload's 127.0.0.1:7000 and sends back what it receives, one connection after the other.

wit_bindgen::generate!({
    inline: "
        package e2e:net-service;

        world guest {
            import wasi:sockets/instance-network@0.2.12;
            import wasi:sockets/tcp-create-socket@0.2.12;
            export wasi:cli/run@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::cli::run::Guest;
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasi::sockets::tcp::TcpSocket;
use wasi::sockets::tcp_create_socket::create_tcp_socket;

struct Service;

impl Guest for Service {
    fn run() -> Result<(), ()> {
        serve().map_err(drop)
    }
}

fn serve() -> Result<(), ErrorCode> {
    let listener = create_tcp_socket(IpAddressFamily::Ipv4)?;
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: 7000,
        address: (127, 0, 0, 1),
    });
    listener.start_bind(&instance_network(), address)?;
    finish(&listener, || listener.finish_bind())?;
    listener.start_listen()?;
    finish(&listener, || listener.finish_listen())?;
    loop {
        let (_socket, input, output) = finish(&listener, || listener.accept())?;
        while let Ok(bytes) = input.blocking_read(4096) {
            if output.blocking_write_and_flush(&bytes).is_err() {
                break;
            }
        }
        drop((input, output));
    }
}

/// Waits for the second half of an operation.
fn finish<T>(
    socket: &TcpSocket,
    half: impl Fn() -> Result<T, ErrorCode>,
) -> Result<T, ErrorCode> {
    loop {
        match half() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            result => return result,
        }
    }
}

export!(Service);
