//! A service of WASI 0.3: listens on the workload's 127.0.0.1:7000 and sends back what it receives, one connection after the
//! other.

wit_bindgen::generate!({
    inline: "
        package e2e:net-service-p3;

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
    ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket,
};

struct Service;

impl Guest for Service {
    async fn run() -> Result<(), ()> {
        serve().await.map_err(drop)
    }
}

async fn serve() -> Result<(), ErrorCode> {
    let listener = TcpSocket::create(IpAddressFamily::Ipv4)?;
    listener.bind(IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: 7000,
        address: (127, 0, 0, 1),
    }))?;
    let mut incoming = listener.listen()?;
    while let Some(socket) = incoming.next().await {
        let (received, _) = socket.receive();
        // What is received is what is sent, without a copy in the guest.
        let _ = socket.send(received).await;
    }
    Ok(())
}

export!(Service);
