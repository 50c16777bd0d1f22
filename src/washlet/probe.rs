//! `washlet probe`: asks URLs until all of them answer well. The image has no shell, and so no `curl`.

use std::{
    fmt,
    io::{self, Write as _},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Wait before the next try.
const PAUSE: Duration = Duration::from_millis(500);

/// What `washlet probe` is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// What to ask.
    pub urls: Vec<Url>,
    /// How long to ask again before giving up.
    pub wait: Duration,
}

/// An `http://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(Uri);

/// A text is no URL that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no URL that can be asked; write it as http://HOST[:PORT]/PATH")]
pub struct ParseUrlError;

/// An answer that never came.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("it cannot be asked: {0}")]
    Request(#[from] http::Error),
}

/// `washlet probe` failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// Some did not answer well in time.
    #[error("{failed} of {all} did not answer with a status from 200 to 299 within {wait:?}")]
    Failed {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
        /// Within which time.
        wait: Duration,
    },
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl FromStr for Url {
    type Err = ParseUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| ParseUrlError)?;
        let asked = uri.scheme_str() == Some("http") && uri.host().is_some_and(|h| !h.is_empty());
        if asked {
            Ok(Self(uri))
        } else {
            Err(ParseUrlError)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Asks all URLs at once, each until it answers well or the time is over; prints a line for each.
///
/// # Errors
/// [`ProbeError::Failed`], when one of them did not.
pub async fn probe(config: Config) -> Result<(), ProbeError> {
    let end = Instant::now() + config.wait;
    let asked = config.urls.iter().map(|url| until(url, end));
    let mut failed = 0;
    let mut out = io::stdout().lock();
    for (url, answer) in config.urls.iter().zip(join_all(asked).await) {
        match answer {
            Ok(status) => writeln!(out, "ok      {url}: {status}")?,
            Err(why) => {
                failed += 1;
                writeln!(out, "failed  {url}: {why}")?;
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    Err(ProbeError::Failed {
        failed,
        all: config.urls.len(),
        wait: config.wait,
    })
}

/// Asks one URL until it answers well, or the time is over: then what it said last.
async fn until(url: &Url, end: Instant) -> Result<StatusCode, String> {
    loop {
        let why = match tokio::time::timeout(ANSWER, get(&url.0)).await {
            // A redirect leads elsewhere than what was asked.
            Ok(Ok(status)) if status.is_success() => return Ok(status),
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANSWER:?}"),
        };
        if Instant::now() + PAUSE > end {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Asks once.
async fn get(url: &Uri) -> Result<StatusCode, NoAnswer> {
    let host = url.host().unwrap_or_default();
    // An address of IPv6 is in brackets there, and nowhere else.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((name, url.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let authority = url.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(target)
        .header(HOST, authority)
        .body(Empty::<Bytes>::new())?;
    // It ends with the sender; what breaks it, the sender sees.
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?.status())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that gives these answers, one a connection, and then the last one again.
    async fn server(answers: &'static [&'static str]) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/x", listener.local_addr().expect("bound"));
        tokio::spawn(async move {
            let mut answers = answers.iter().peekable();
            let mut last = "";
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                last = answers.next().unwrap_or(&last);
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let answer =
                    format!("HTTP/1.1 {last}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        url.parse().expect("a URL")
    }

    async fn asked(urls: Vec<Url>, wait: Duration) -> Result<(), ProbeError> {
        probe(Config { urls, wait }).await
    }

    #[tokio::test]
    async fn all_must_answer_well() {
        let (good, bad) = (
            server(&["204 No Content"]).await,
            server(&["302 Found"]).await,
        );
        let wait = Duration::from_millis(50);
        assert!(asked(vec![good.clone()], wait).await.is_ok());
        let error = asked(vec![good, bad], wait).await.expect_err("a redirect");
        assert!(error.to_string().starts_with("1 of 2"), "{error}");
        let closed = "http://127.0.0.1:1/".parse().expect("a URL");
        assert!(asked(vec![closed], wait).await.is_err());
    }

    #[tokio::test]
    async fn what_is_not_ready_is_asked_again() {
        let slow = server(&["503 Service Unavailable", "404 Not Found", "200 OK"]).await;
        assert!(asked(vec![slow], Duration::from_secs(10)).await.is_ok());
    }

    #[test]
    fn only_http_is_asked() {
        assert!("http://[::1]:8081/readyz?x".parse::<Url>().is_ok());
        for text in ["", "localhost", "https://a/", "http://", "/x", "http:///x"] {
            assert_eq!(text.parse::<Url>(), Err(ParseUrlError), "{text}");
        }
    }
}
