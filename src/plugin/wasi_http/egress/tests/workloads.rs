//! What workloads do not share, and what the generations of one do; bound as a host binds them.

use std::num::NonZeroUsize;

use super::*;
use crate::plugin::{
    Binding,
    testing::{self, Kit},
    wasi_http::HttpServer,
};

/// A generation of a workload that may call loopback, and what it calls by.
async fn generation(host: &Arc<HttpServer>, name: &str) -> (Box<dyn Binding>, Arc<Egress>) {
    let mut kit = Kit::new(host.clone());
    kit.workload = testing::workload(name);
    kit.workload.components[0].allowed_hosts = vec!["127.0.0.1".parse().unwrap()];
    let binding = kit.bind().await.unwrap();
    let egress = binding.slot("main").unwrap().downcast().ok().unwrap();
    (binding, egress)
}

fn host() -> HttpServer {
    HttpServer::new("127.0.0.1:0".parse().unwrap())
}

/// Answers with the number of the connection.
async fn numbered() -> Server {
    Server::raw(|stream, number| http_1(stream, move |_| async move { said(number) })).await
}

fn said(number: usize) -> Reply {
    let body = Full::new(Bytes::from(number.to_string()));
    Response::new(body.map_err(|never| match never {}).boxed_unsync())
}

#[tokio::test]
async fn a_connection_of_one_workload_is_never_used_by_another() {
    let server = numbered().await;
    let host = Arc::new(host());
    let (_a, a) = generation(&host, "a").await;
    let (_b, b) = generation(&host, "b").await;
    for _ in 0..3 {
        assert_eq!(get(&a, &server.url()).await.unwrap(), "0");
        assert_eq!(get(&b, &server.url()).await.unwrap(), "1");
    }
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn two_generations_have_together_what_one_may_have() {
    let server = numbered().await;
    let stuck = Server::raw(|mut stream, _| async move {
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let one = NonZeroUsize::MIN;
    let host = Arc::new(host().max_outgoing_connections(one));
    let (_old, old) = generation(&host, "app").await;
    let (_new, new) = generation(&host, "app").await;
    let (_other, other) = generation(&host, "other").await;
    // An idle connection of one makes room for one of the other, however often.
    for (who, expected) in [(&old, "0"), (&new, "1"), (&old, "2"), (&new, "3")] {
        assert_eq!(within(get(who, &server.url())).await.unwrap(), expected);
    }
    // One that is in use does not; who waits for it goes on when it ends.
    let call = request(Method::GET, &stuck.url(), empty());
    let held = within(send(&old, call, RequestOptions::default())).await;
    let soon = RequestOptions {
        connect_timeout: Some(Duration::from_millis(50)),
        ..RequestOptions::default()
    };
    let call = request(Method::GET, &server.url(), empty());
    let failed = within(send(&new, call, soon)).await.err().unwrap();
    assert!(
        matches!(failed, Error::ConnectionLimitReached),
        "{failed:?}"
    );
    assert_eq!(within(get(&other, &server.url())).await.unwrap(), "4");
    let url = server.url();
    let mut waiting = Box::pin(get(&new, &url));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(held);
    assert_eq!(within(waiting).await.unwrap(), "5");
}
