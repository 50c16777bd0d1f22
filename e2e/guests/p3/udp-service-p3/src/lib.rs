//! A service of WASI 0.3: receives datagrams at the workload's 127.0.0.1:7000 and sends each back to whom it is from, to
//! whom it is connected for as long as that takes.

wit_bindgen::generate!({
    inline: "
        package e2e:udp-service-p3;

        world guest {
            import wasi:sockets/types@0.3.0;
            export wasi:cli/run@0.3.0;
        }
    ",
    path: "../../../../wit/p3",
    generate_all,
});

use exports::wasi::cli::run::Guest;
use wasi::sockets::types::{
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, UdpSocket,
};

struct Service;

impl Guest for Service {
    async fn run() -> Result<(), ()> {
        serve().await.map_err(drop)
    }
}

async fn serve() -> Result<(), ErrorCode> {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4)?;
    socket.bind(IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: 7000,
        address: (127, 0, 0, 1),
    }))?;
    loop {
        let (data, from) = socket.receive().await?;
        socket.connect(from)?;
        let _ = socket.send(data, None).await;
        socket.disconnect()?;
    }
}

export!(Service);
