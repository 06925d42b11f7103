//! Kernel routes to other nodes that somebody else removed or replaced are written again.

use crate::agent::{Agent, blocking};
use crate::controller::{Controller, Next};
use crate::ledger::Ledger;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often is looked whether the routes are as they were written.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Looks whether the kernel's routes to other nodes' pods are as they were written.
#[derive(Debug)]
pub(crate) struct RouteCheck;

#[async_trait]
impl Controller for RouteCheck {
    async fn work(&mut self, agent: &Arc<Agent>) -> Next {
        let datapath = Arc::clone(&agent.datapath);
        // Read under no lock of the ledger: there may be thousands. One that is written meanwhile is written twice.
        match blocking(move || datapath.routes(&BTreeSet::new())).await {
            Ok(Some(realised)) => {
                agent
                    .on_ledger(move |ledger| {
                        let Ledger { peers, writer, .. } = ledger;
                        peers.rewrite_routes(&realised, writer);
                    })
                    .await;
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "kernel routes cannot be read"),
        }
        Next::After(CHECK_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Node, eventually, second_node};
    use ipnet::IpNet;

    #[tokio::test]
    async fn a_route_that_was_removed_or_added_by_others_is_put_right() {
        let node = Node::start().await;
        node.put(second_node()).await;
        node.settled().await;
        let routes = || node.datapath.kernel().routes;
        eventually("written", || async { routes().len() == 2 }).await;
        let written = routes();
        let mut check = RouteCheck;
        for change in [
            |routes: &mut Vec<(IpNet, _)>| routes.truncate(1),
            |routes: &mut Vec<(IpNet, _)>| {
                let (_, via) = routes[0];
                routes.push(("10.244.9.0/24".parse().unwrap(), via));
            },
        ] {
            node.datapath.change(|kernel| change(&mut kernel.routes));
            assert_ne!(routes(), written);
            check.work(&node.agent()).await;
            assert_eq!(routes(), written);
        }
        // Nothing is written where nothing differs.
        drop(node.datapath.take_calls());
        check.work(&node.agent()).await;
        assert_eq!(node.datapath.take_calls(), [""; 0]);
    }
}
