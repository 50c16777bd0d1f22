//! What a component can reach by its grants. Included by `#[path]`, because each guest has bindings of its own.

use std::net::SocketAddrV4;

use crate::wasi::{
    cli::environment,
    config::store,
    filesystem::preopens,
    http::{
        outgoing_handler,
        types::{Fields, OutgoingRequest, Scheme},
    },
    sockets::{
        instance_network::instance_network,
        ip_name_lookup::resolve_addresses,
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
        tcp_create_socket::create_tcp_socket,
    },
};

/// A key of `wasi:config/store`.
pub fn config(key: &str) -> Option<String> {
    store::get(key).ok().flatten()
}

/// An environment variable.
pub fn variable(name: &str) -> Option<String> {
    let mut all = environment::get_environment().into_iter();
    all.find(|(key, _)| key == name).map(|(_, value)| value)
}

/// The status of a GET, or the name of the error.
pub fn get(authority: &str, path: &str) -> Result<u16, String> {
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_scheme(Some(&Scheme::Http))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)))
        .map_err(|()| "no such URL".to_owned())?;
    let code = |error| format!("{error:?}").replace("ErrorCode::", "");
    let response = outgoing_handler::handle(request, None).map_err(code)?;
    response.subscribe().block();
    let response = response.get().expect("it is ready");
    let response = response.expect("it is taken once").map_err(code)?;
    Ok(response.status())
}

/// The paths of the directories that it was given.
pub fn directories() -> String {
    let directories = preopens::get_directories().into_iter();
    let paths: Vec<String> = directories.map(|(_, path)| path).collect();
    paths.join(",")
}

/// What comes of a connection to `IPV4:PORT`.
pub fn connect(to: &str) -> String {
    let Ok(to) = to.parse::<SocketAddrV4>() else {
        return "no such address".to_owned();
    };
    let [a, b, c, d] = to.ip().octets();
    let to = IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: to.port(),
        address: (a, b, c, d),
    });
    let connected = create_tcp_socket(IpAddressFamily::Ipv4).and_then(|socket| {
        socket.start_connect(&instance_network(), to)?;
        loop {
            match socket.finish_connect() {
                Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
                done => return done.map(drop),
            }
        }
    });
    word(connected)
}

/// What comes of looking a name up.
pub fn lookup(name: &str) -> String {
    let found = resolve_addresses(&instance_network(), name).and_then(|addresses| loop {
        match addresses.resolve_next_address() {
            Err(ErrorCode::WouldBlock) => addresses.subscribe().block(),
            done => return done.map(drop),
        }
    });
    word(found)
}

fn word(done: Result<(), ErrorCode>) -> String {
    done.map_or_else(|code| code.name().to_owned(), |()| "done".to_owned())
}
