//! A small HTTP server for scrapes: `GET /metrics` and `GET /healthz`, nothing else.

use super::Metrics;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

/// Connections at once.
const MAX_CONNECTIONS: usize = 8;
/// Bytes of a request that are read at most.
const MAX_REQUEST: usize = 8_192;
/// Time for a request to arrive. When all places are taken, whoever has held one longest without a request loses
/// it at once: nobody keeps scrapes out by opening connections.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 1 });
/// Time for a request and its answer together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection could not be accepted.
const RETRY: Duration = Duration::from_secs(1);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers scrapes on `listener` until `shutdown` becomes true or its sender is gone.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    mut shutdown: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut open: Vec<(AbortHandle, Arc<AtomicBool>)> = Vec::new();
    loop {
        let accepted = tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: trying at once would burn a CPU.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        open.retain(|(task, _)| !task.is_finished());
        let place = match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let idle = open
                    .iter()
                    .find(|(_, asked)| !asked.load(Ordering::Relaxed));
                if let Some((task, _)) = idle {
                    task.abort();
                }
                let freed = tokio::select! {
                    _ = shutdown.wait_for(|stop| *stop) => return,
                    freed = Arc::clone(&places).acquire_owned() => freed,
                };
                match freed {
                    Ok(place) => place,
                    Err(_) => return,
                }
            }
        };
        let metrics = Arc::clone(&metrics);
        let asked = Arc::new(AtomicBool::new(false));
        let has_asked = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            // A peer that hangs up or dawdles is its own loss.
            let _ = tokio::time::timeout(TIMEOUT, answer(stream, metrics, &has_asked)).await;
            drop(place);
        });
        open.push((task.abort_handle(), asked));
    }
}

async fn answer<S>(mut stream: S, metrics: Arc<Metrics>, asked: &AtomicBool) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Ok(head) = tokio::time::timeout(REQUEST_TIMEOUT, read_head(&mut stream)).await else {
        return Ok(());
    };
    let head = head?;
    asked.store(true, Ordering::Relaxed);
    let mut words = head
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace();
    let (method, target) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    let path = target.split('?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        ("GET" | "HEAD", "/metrics") => {
            let rendered = tokio::task::spawn_blocking(move || metrics.render()).await;
            match rendered {
                Ok(Ok(text)) => ("200 OK", OPEN_METRICS, text),
                _ => (
                    "500 Internal Server Error",
                    PLAIN,
                    "the metrics could not be rendered\n".to_owned(),
                ),
            }
        }
        ("GET" | "HEAD", "/healthz") if metrics.is_ready() => ("200 OK", PLAIN, "ok\n".to_owned()),
        ("GET" | "HEAD", "/healthz") => {
            ("503 Service Unavailable", PLAIN, "not ready\n".to_owned())
        }
        ("GET" | "HEAD", _) => (
            "404 Not Found",
            PLAIN,
            "there are /metrics and /healthz\n".to_owned(),
        ),
        ("", _) => ("400 Bad Request", PLAIN, "no HTTP request\n".to_owned()),
        _ => (
            "405 Method Not Allowed",
            PLAIN,
            "only GET is understood\n".to_owned(),
        ),
    };
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if method != "HEAD" {
        response.push_str(&body);
    }
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// Reads up to the empty line; what comes after it is of no interest.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1_024];
    while bytes.len() < MAX_REQUEST && !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(chunk.get(..read).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
