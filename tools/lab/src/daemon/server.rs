//! The daemon's socket: who answers which call.

use crate::LabError;
use crate::control::{GiveOrder, ReadProcesses};
use crate::daemon::processes::Processes;
use crate::paths::Lab;
use heddle_rpc::server::{Reply, Service, bind, serve, unknown_method};
use heddle_rpc::{ApiError, Call, Done, Request};
use std::sync::Arc;
use tokio::sync::watch;

/// Answers in the daemon's name.
struct Api {
    processes: Arc<Processes>,
}

impl Service for Api {
    async fn answer(&self, request: Request) -> Result<Reply, ApiError> {
        match request.method.as_str() {
            ReadProcesses::METHOD => Reply::one::<ReadProcesses>(&self.processes.standings()),
            GiveOrder::METHOD => {
                let GiveOrder { name, order } = request.read()?;
                let ordered = self.processes.order(&name, order).await;
                ordered.map_err(|error| {
                    ApiError::new("lab/order-failed", error.to_string()).object(name)
                })?;
                Reply::one::<GiveOrder>(&Done {})
            }
            method => Err(unknown_method(method)),
        }
    }
}

/// Opens the socket, and answers until what it gives is dropped.
pub(super) fn open(lab: &Lab, processes: Arc<Processes>) -> Result<watch::Sender<bool>, LabError> {
    let path = lab.daemon_socket();
    let listener = bind(&path).map_err(|error| LabError::file("listen on", &path, error))?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(Arc::new(Api { processes }), listener, stopped));
    Ok(stop)
}
