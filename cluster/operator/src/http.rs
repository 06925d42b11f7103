//! Answers `GET /metrics` and `GET /healthz`; nothing else, and never much at once.

use crate::metrics::Metrics;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Requests at one time.
const MAX_CONNECTIONS: usize = 16;
/// Bytes of a request's head.
const MAX_HEAD: usize = 8 << 10;
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The exposition's media type.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut requests = JoinSet::new();
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        while requests.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let metrics = Arc::clone(&metrics);
                requests.spawn(async move {
                    let _permit = permit;
                    match tokio::time::timeout(TIMEOUT, answer(stream, &metrics)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "a request failed"),
                        Err(_) => tracing::debug!(%peer, "a request took too long"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads one request, answers it and closes.
async fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return respond(
                &mut stream,
                "431 Request Header Fields Too Large",
                "text/plain",
                "",
            )
            .await;
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let path = target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default();
    let (status, media, body) = match (method, path) {
        (Some(b"GET"), b"/metrics") => ("200 OK", OPENMETRICS, metrics.text()),
        (Some(b"GET"), b"/healthz") if metrics.is_synced() => {
            ("200 OK", "text/plain", "ok\n".to_owned())
        }
        (Some(b"GET"), b"/healthz") => (
            "503 Service Unavailable",
            "text/plain",
            "the cluster's objects have not all been read yet; is the store reachable?\n"
                .to_owned(),
        ),
        (Some(b"GET"), _) => (
            "404 Not Found",
            "text/plain",
            "only /metrics and /healthz are here\n".to_owned(),
        ),
        _ => ("405 Method Not Allowed", "text/plain", String::new()),
    };
    respond(&mut stream, status, media, &body).await
}

async fn respond(stream: &mut TcpStream, status: &str, media: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
