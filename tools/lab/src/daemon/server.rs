//! The daemon's socket: one JSON line asked, one JSON line answered.

use crate::LabError;
use crate::control::{Request, Response};
use crate::daemon::processes::Processes;
use crate::paths::Lab;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

/// Bytes of a request at most.
const MAX_REQUEST: u64 = 64 * 1024;

/// Opens the socket, for root only, and answers until the daemon ends.
pub(super) fn serve(lab: &Lab, processes: Arc<Processes>) -> Result<JoinHandle<()>, LabError> {
    let path = lab.daemon_socket();
    // A predecessor's socket, if there was one.
    let _ = std::fs::remove_file(&path);
    let listener =
        UnixListener::bind(&path).map_err(|error| LabError::file("listen on", &path, error))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| LabError::file("protect", &path, error))?;
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(stream, processes.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a request was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

async fn answer(mut stream: UnixStream, processes: Arc<Processes>) {
    let (reading, mut writing) = stream.split();
    let mut line = String::new();
    if BufReader::new(reading.take(MAX_REQUEST))
        .read_line(&mut line)
        .await
        .is_err()
    {
        return;
    }
    let response = match serde_json::from_str(&line) {
        Ok(Request::Status) => Response::Processes(processes.standings()),
        Ok(Request::Process { name, order }) => match processes.order(&name, order).await {
            Ok(()) => Response::Done,
            Err(error) => Response::Failed(error.to_string()),
        },
        Err(error) => Response::Failed(format!("the request is not understood: {error}")),
    };
    if let Ok(mut text) = serde_json::to_string(&response) {
        text.push('\n');
        // The asker may have gone.
        let _ = writing.write_all(text.as_bytes()).await;
    }
}
