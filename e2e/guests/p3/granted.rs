//! What a component can reach by its grants. Included by `#[path]`, because each guest has bindings of its own.

use std::net::SocketAddrV4;

use crate::wasi::{
    cli::environment,
    filesystem::preopens,
    http::{
        client,
        types::{Fields, Request, Scheme},
    },
    sockets::{
        ip_name_lookup,
        types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket},
    },
};
use crate::{http::query, wit_future};

/// What a request asks: `?variable=NAME`, `?connect=IPV4:PORT`, `?lookup=NAME`, `?authority=HOST:PORT` (the status of a GET of
/// `/`), or the directories that the component was given.
pub async fn found(request: &Request) -> String {
    if let Some(name) = query(request, "variable") {
        let mut all = environment::get_environment().into_iter();
        let found = all.find(|(key, _)| *key == name);
        found.map_or("nothing".to_owned(), |(_, value)| value)
    } else if let Some(to) = query(request, "connect") {
        connect(&to).await
    } else if let Some(name) = query(request, "lookup") {
        word(ip_name_lookup::resolve_addresses(name).await)
    } else if let Some(authority) = query(request, "authority") {
        get(&authority).await
    } else {
        let directories = preopens::get_directories().into_iter();
        let paths: Vec<String> = directories.map(|(_, path)| path).collect();
        paths.join(",")
    }
}

async fn get(authority: &str) -> String {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some("/"));
    match client::send(request).await {
        Ok(response) => response.get_status_code().to_string(),
        Err(code) => format!("{code:?}").replace("ErrorCode::", ""),
    }
}

async fn connect(to: &str) -> String {
    let Ok(to) = to.parse::<SocketAddrV4>() else {
        return "no such address".to_owned();
    };
    let [a, b, c, d] = to.ip().octets();
    let to = IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: to.port(),
        address: (a, b, c, d),
    });
    match TcpSocket::create(IpAddressFamily::Ipv4) {
        Ok(socket) => word(socket.connect(to).await),
        Err(code) => word::<(), _>(Err(code)),
    }
}

fn word<T, E: std::fmt::Debug>(done: Result<T, E>) -> String {
    done.map_or_else(
        |code| format!("{code:?}").replace("ErrorCode::", ""),
        |_| "done".to_owned(),
    )
}
