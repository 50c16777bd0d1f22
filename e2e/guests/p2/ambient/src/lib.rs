//! Reports what it can reach without having been granted anything, a line each:
//! `GET /?tcp=IPV4:PORT&dns=NAME`. A test reads the lines to prove that nothing is ambient.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:ambient;

        world guest {
            import wasi:cli/environment@0.2.12;
            import wasi:filesystem/preopens@0.2.12;
            import wasi:sockets/instance-network@0.2.12;
            import wasi:sockets/ip-name-lookup@0.2.12;
            import wasi:sockets/tcp-create-socket@0.2.12;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use std::net::SocketAddrV4;
use wasi::cli::environment;
use wasi::filesystem::preopens;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::ip_name_lookup::resolve_addresses;
use wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasi::sockets::tcp::TcpSocket;
use wasi::sockets::tcp_create_socket::create_tcp_socket;

struct Ambient;

impl Guest for Ambient {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let name = http::query(&request, "dns").unwrap_or("localhost".into());
        let address = http::query(&request, "tcp").unwrap_or("127.0.0.1:80".into());
        let Ok(address) = address.parse::<SocketAddrV4>() else {
            return http::respond(out, 400, "give ?tcp=IPV4:PORT\n");
        };
        let preopens: Vec<String> = preopens::get_directories()
            .into_iter()
            .map(|(_, path)| path)
            .collect();
        let report = [
            format!("env {:?}", environment::get_environment()),
            format!("args {:?}", environment::get_arguments()),
            format!("cwd {:?}", environment::initial_cwd()),
            format!("preopens {preopens:?}"),
            format!("dns {:?}", resolve(&name).map_err(|code| code.name())),
            format!("connect {:?}", connect(address).map_err(|code| code.name())),
            format!("listen {:?}", listen().map_err(|code| code.name())),
        ];
        http::respond(out, 200, &(report.join("\n") + "\n"));
    }
}

fn resolve(name: &str) -> Result<usize, ErrorCode> {
    let addresses = resolve_addresses(&instance_network(), name)?;
    let mut count = 0;
    loop {
        match addresses.resolve_next_address() {
            Ok(Some(_)) => count += 1,
            Ok(None) => return Ok(count),
            Err(ErrorCode::WouldBlock) => addresses.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

fn connect(address: SocketAddrV4) -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), wit_address(address))?;
    finish(&socket, || socket.finish_connect().map(drop))
}

fn listen() -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(
        &instance_network(),
        wit_address("127.0.0.1:0".parse().expect("an address")),
    )?;
    finish(&socket, || socket.finish_bind())?;
    socket.start_listen()?;
    finish(&socket, || socket.finish_listen())
}

/// Waits for the second half of an operation.
fn finish(socket: &TcpSocket, half: impl Fn() -> Result<(), ErrorCode>) -> Result<(), ErrorCode> {
    loop {
        match half() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            result => return result,
        }
    }
}

fn wit_address(address: SocketAddrV4) -> IpSocketAddress {
    let [a, b, c, d] = address.ip().octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: address.port(),
        address: (a, b, c, d),
    })
}

export!(Ambient);
