//! Uses sockets as it is told, and answers with what came of it:
//! `GET /connect?to=IPV4:PORT` sends `ping` there and answers with what comes back; `/datagram?to=IPV4:PORT` does so by UDP, with
//! `&connected=1` as the socket's only peer and with `&bind=IPV4:PORT` from that address; `/lookup?name=NAME` looks a name up, with
//! `&port=PORT` connects to what was found; `/many` opens sockets until it may not open another.

#[path = "../../http.rs"]
mod http;

wit_bindgen::generate!({
    inline: "
        package e2e:sockets;

        world guest {
            import wasi:clocks/monotonic-clock@0.2.12;
            import wasi:io/poll@0.2.12;
            import wasi:sockets/instance-network@0.2.12;
            import wasi:sockets/ip-name-lookup@0.2.12;
            import wasi:sockets/tcp-create-socket@0.2.12;
            import wasi:sockets/udp-create-socket@0.2.12;
            export wasi:http/incoming-handler@0.2.12;
        }
    ",
    path: "../../../../wit",
    generate_all,
});

use exports::wasi::http::incoming_handler::Guest;
use std::net::{Ipv4Addr, SocketAddrV4};
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::http::types::{IncomingRequest, ResponseOutparam};
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::ip_name_lookup::resolve_addresses;
use wasi::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress,
};
use wasi::sockets::tcp::{ShutdownType, TcpSocket};
use wasi::sockets::tcp_create_socket::create_tcp_socket;
use wasi::sockets::udp::OutgoingDatagram;
use wasi::sockets::udp_create_socket::create_udp_socket;

/// Longest time that an answer to a datagram is waited for, in nanoseconds.
const PATIENCE: u64 = 500_000_000;

struct Sockets;

impl Guest for Sockets {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let port = http::query(&request, "port").and_then(|port| port.parse().ok());
        let result = match http::path(&request).as_str() {
            "/connect" => {
                let to = http::query(&request, "to").and_then(|to| to.parse().ok());
                to.ok_or(ErrorCode::InvalidArgument).and_then(exchange)
            }
            "/datagram" => datagram(&request),
            "/lookup" => lookup(&http::query(&request, "name").unwrap_or_default(), port),
            "/many" => Ok(many()),
            _ => return http::respond(out, 404, "no such path\n"),
        };
        let text = result.unwrap_or_else(|code| code.name().to_owned());
        http::respond(out, 200, &text);
    }
}

fn exchange(to: SocketAddrV4) -> Result<String, ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), address(to))?;
    let (input, output) = finish(&socket, || socket.finish_connect())?;
    output.blocking_write_and_flush(b"ping").map_err(|_| ErrorCode::Unknown)?;
    socket.shutdown(ShutdownType::Send)?;
    let mut answer = Vec::new();
    while let Ok(bytes) = input.blocking_read(4096) {
        answer.extend(bytes);
    }
    drop((input, output));
    Ok(format!("got {}", String::from_utf8_lossy(&answer)))
}

fn datagram(request: &IncomingRequest) -> Result<String, ErrorCode> {
    let parse = |name| http::query(request, name).and_then(|text| text.parse().ok());
    let to = address(parse("to").ok_or(ErrorCode::InvalidArgument)?);
    let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
    let socket = create_udp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), address(parse("bind").unwrap_or(any)))?;
    socket.finish_bind()?;
    let connected = http::query(request, "connected").is_some();
    let (incoming, outgoing) = socket.stream(connected.then_some(to))?;
    if outgoing.check_send()? == 0 {
        outgoing.subscribe().block();
    }
    let ping = OutgoingDatagram {
        data: b"ping".to_vec(),
        remote_address: (!connected).then_some(to),
    };
    outgoing.send(&[ping])?;
    let (arrival, late) = (incoming.subscribe(), subscribe_duration(PATIENCE));
    let arrived = wasi::io::poll::poll(&[&arrival, &late]).contains(&0);
    let answers = incoming.receive(1)?;
    drop(arrival);
    match answers.first() {
        Some(answer) if format!("{:?}", answer.remote_address) == format!("{to:?}") => {
            Ok(format!("got {}", String::from_utf8_lossy(&answer.data)))
        }
        Some(answer) => Ok(format!("got something from {:?}", answer.remote_address)),
        None if arrived => Ok("got nothing, after all".to_owned()),
        None => Ok("nothing came".to_owned()),
    }
}

fn address(of: SocketAddrV4) -> IpSocketAddress {
    let [a, b, c, d] = of.ip().octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: of.port(),
        address: (a, b, c, d),
    })
}

fn lookup(name: &str, port: Option<u16>) -> Result<String, ErrorCode> {
    let addresses = resolve_addresses(&instance_network(), name)?;
    let first = loop {
        match addresses.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => break Ipv4Addr::new(a, b, c, d),
            Ok(Some(IpAddress::Ipv6(_))) => {}
            Ok(None) => return Err(ErrorCode::NameUnresolvable),
            Err(ErrorCode::WouldBlock) => addresses.subscribe().block(),
            Err(code) => return Err(code),
        }
    };
    match port {
        Some(port) => exchange(SocketAddrV4::new(first, port)),
        None => Ok(first.to_string()),
    }
}

fn many() -> String {
    let mut sockets = Vec::new();
    loop {
        match create_tcp_socket(IpAddressFamily::Ipv4) {
            Ok(socket) => sockets.push(socket),
            Err(code) => return format!("{} then {}", sockets.len(), code.name()),
        }
        if sockets.len() > 100_000 {
            return "no limit".to_owned();
        }
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

export!(Sockets);
