//! Who stands at which address, and where it is reached: the rows of the ipcache, and the routes to other nodes.

use super::ipcache::{self, Base, Ipcache};
use super::nodes::NodeTable;
use super::remote::{RemoteEndpoint, RemoteTable};
use crate::config::{AgentConfig, Fabric};
use crate::directory::Listing;
use crate::endpoint::table::{EndpointTable, LocalEndpoint};
use crate::identities::unsettled::Unsettled;
use crate::ledger::{Shortfall, Writer};
use crate::policy::Rules;
use heddle_datapath::{Datapath, DatapathError, Facts, RealisedRoutes};
use heddle_model::Identity;
use heddle_policy::{CidrAssignment, CidrChange, CidrScope};
use heddle_rpc::durable::replace_file;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// File in the state directory: which number stands for which policy CIDR.
const CIDRS_FILE: &str = "policy-cidrs.json";
/// Rows of the ipcache that stay free: some kernels cannot even change a row of a full map.
const SPARE_ROWS: usize = 64;
/// The ipcache where it stands beside endpoints.
pub(crate) const IPCACHE: &str = "ipcache";

/// The addresses of nodes, of their pods, and those that policies name.
pub(crate) struct Peers {
    pub(crate) ipcache: Ipcache,
    pub(crate) nodes: NodeTable,
    /// Other nodes' pods.
    pub(crate) remote: RemoteTable,
    /// CIDR changes that are not in the ipcache yet.
    cidr_changes: Vec<CidrChange>,
    routes: Routes,
    own_name: String,
    fabric: Fabric,
    /// Rows that the ipcache has room for.
    most_rows: u32,
    /// Where it is written down which number stands for which prefix.
    cidrs_file: PathBuf,
}

/// Kernel routes to other nodes' pod ranges.
#[derive(Default)]
struct Routes {
    written: Option<Vec<(IpNet, IpAddr)>>,
    /// No other node has changed since they were written.
    is_current: bool,
}

impl Peers {
    /// What the kernel holds, and the numbers of addresses in it.
    pub(crate) fn restore(
        config: &AgentConfig,
        datapath: &dyn Datapath,
    ) -> Result<(Self, Vec<CidrAssignment>), DatapathError> {
        let cidrs_file = config.state_dir.join(CIDRS_FILE);
        let rows = datapath.peers()?;
        let written_down = std::fs::read(&cidrs_file).ok();
        let written_down = written_down.and_then(|content| serde_json::from_slice(&content).ok());
        let cidrs = ipcache::borne(&rows, written_down);
        let mut ipcache = Ipcache::default();
        ipcache.restore(rows, &cidrs);
        let restored = Self {
            ipcache,
            nodes: NodeTable::new(config),
            remote: RemoteTable::default(),
            cidr_changes: Vec::new(),
            routes: Routes::default(),
            own_name: config.node_name.clone(),
            fabric: config.fabric,
            most_rows: config.max_ipcache_entries,
            cidrs_file,
        };
        Ok((restored, cidrs))
    }

    /// Who one address is; `None` where nobody is known at it.
    pub(crate) fn who_is(
        &self,
        address: IpAddr,
        endpoints: &EndpointTable,
        unsettled: &Unsettled,
    ) -> Option<(Base, Listing)> {
        if let Some(endpoint) = endpoints.at(address) {
            let listing = Listing {
                identity: endpoint.identity,
                pod: Some(endpoint.record.pod.clone()),
                node: Some(self.own_name.clone()),
            };
            return Some((Base::pod(endpoint.identity, None), listing));
        }
        let of_node = |identity: Identity, name: &str| Listing {
            identity,
            pod: None,
            node: Some(name.to_owned()),
        };
        if self.nodes.gateways().any(|gateway| gateway == address)
            || self.nodes.is_of_device(address)
        {
            let listing = of_node(Identity::HOST, &self.own_name);
            return Some((Base::node(Identity::HOST, None), listing));
        }
        if let Some((name, view)) = self.nodes.at(address) {
            let (identity, node) = if *name == self.own_name {
                (Identity::HOST, None)
            } else {
                // What a node encapsulates bears its underlay address, whatever it holds. Without one the node
                // is still another than this.
                let underlay = view.underlay(self.fabric, address.is_ipv4());
                (Identity::REMOTE_NODE, underlay.or(Some(address)))
            };
            return Some((Base::node(identity, node), of_node(identity, name)));
        }
        let (name, endpoint) = self.remote.at(address)?;
        let node = self.underlay_of(endpoint, address.is_ipv4());
        // Until local endpoints have left a number that stands for other labels, it must not give those who
        // have it elsewhere what these labels are allowed here. Not `unmanaged`: of such an address the tunnel
        // tells the identity.
        let identity = if unsettled.contested(endpoint.identity).is_some() {
            Identity::INIT
        } else {
            endpoint.identity
        };
        let listing = Listing {
            identity,
            pod: Some(name.clone()),
            node: endpoint.node_name.clone(),
        };
        Some((Base::pod(identity, node), listing))
    }

    fn underlay_of(&self, endpoint: &RemoteEndpoint, wants_v4: bool) -> Option<IpAddr> {
        endpoint
            .node_name
            .as_ref()
            .and_then(|name| self.nodes.get(name))
            .and_then(|node| node.underlay(self.fabric, wants_v4))
            .or(endpoint.node_address)
    }

    /// The facts that an endpoint's programs should have.
    pub(crate) fn facts_of(&self, endpoint: &LocalEndpoint) -> Option<Facts> {
        let link = endpoint.record.link.as_ref()?;
        let cidr = |address: Option<IpAddr>| match address {
            Some(address) => self.ipcache.cidr(address.into(), CidrScope::InCluster),
            None => Identity::UNKNOWN,
        };
        Some(Facts {
            endpoint: endpoint.record.endpoint,
            ifindex: link.ifindex,
            ipv4: endpoint.record.ipv4,
            ipv6: endpoint.record.ipv6,
            identity: endpoint.identity,
            cidr_ipv4: cidr(endpoint.record.ipv4.map(IpAddr::V4)),
            cidr_ipv6: cidr(endpoint.record.ipv6.map(IpAddr::V6)),
            mac: link.mac,
            host_mac: link.host_mac,
        })
    }

    /// Takes in the ranges of nodes where they have changed. True when they have: the gateways may be others.
    pub(crate) fn take_in_ranges(&mut self, rules: &mut Rules) -> bool {
        if !self.nodes.take_ranges_changed() {
            return false;
        }
        self.routes.is_current = false;
        let ranges = self.nodes.ranges();
        let former: BTreeSet<IpNet> = self.ipcache.ranges().map(|(prefix, _)| prefix).collect();
        for gone in former.iter().filter(|prefix| !ranges.contains_key(prefix)) {
            rules.change(|engine| engine.remove_address(*gone));
        }
        for (prefix, base) in ranges.iter().filter(|(_, base)| base.in_cluster) {
            rules.change(|engine| engine.set_address(*prefix, base.identity));
        }
        self.ipcache.set_ranges(ranges);
        true
    }

    /// Takes in what became of the numbers of addresses.
    pub(crate) fn take_cidr_changes(&mut self, rules: &mut Rules) {
        let changes = rules.take_cidr_changes();
        for change in &changes {
            self.ipcache.change_cidr(change);
        }
        self.cidr_changes.extend(changes);
    }

    /// What is not in the ipcache yet of the changes of numbers.
    pub(crate) fn cidr_changes(&self) -> &[CidrChange] {
        &self.cidr_changes
    }

    /// The ipcache and the facts of endpoints have every number. It is written down which number stands for which
    /// prefix: the kernel's rows alone do not tell for every one. Not synced to the disk: a power failure empties
    /// the kernel's maps too.
    pub(crate) fn numbers_written(&mut self) {
        if self.cidr_changes.is_empty() {
            return;
        }
        self.cidr_changes.clear();
        let path = &self.cidrs_file;
        let written = serde_json::to_vec(&self.ipcache.cidrs())
            .map_err(std::io::Error::from)
            .and_then(|content| replace_file(path, &content));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the numbers of policy CIDRs may change at the next restart");
        }
    }

    /// Writes the rows of the ipcache that are not as wished.
    pub(crate) fn write_rows(&mut self, writer: &mut Writer) {
        let most = (self.most_rows as usize).saturating_sub(SPARE_ROWS);
        let changes = self.ipcache.changes(most);
        let mut done = true;
        if !changes.left_out.is_empty() {
            let reason = format!(
                "{} addresses of pods have no row, because the ipcache is full: nobody here reaches them, and they reach nobody here; raise maxIpcacheEntries ({})",
                changes.left_out.len(),
                self.most_rows
            );
            let shortfall = Shortfall {
                reason,
                ..Shortfall::default()
            };
            writer.failures.fall_short(IPCACHE.to_owned(), shortfall);
        }
        if !changes.set.is_empty() {
            match writer.datapath.set_peers(&changes.set) {
                Ok(()) => self.ipcache.wrote(changes.set),
                Err(error) => {
                    done = false;
                    self.ipcache.doubt(&changes.set);
                    writer.failed(IPCACHE.to_owned(), &error);
                }
            }
        }
        if !changes.remove.is_empty() {
            match writer.datapath.remove_peers(&changes.remove) {
                Ok(()) => self.ipcache.removed(&changes.remove),
                Err(error) => {
                    done = false;
                    writer.failed(IPCACHE.to_owned(), &error);
                }
            }
        }
        if done {
            self.ipcache.settled(changes.left_out);
        }
    }

    /// Writes the kernel routes to other nodes' pod ranges.
    pub(crate) fn write_routes(&mut self, writer: &mut Writer) {
        if self.routes.is_current {
            return;
        }
        let routes = self.nodes.routes();
        if self.routes.written.as_ref() != Some(&routes) {
            if let Err(error) = writer.datapath.set_routes(&routes) {
                return writer.failed("routes".to_owned(), &error);
            }
            self.routes.written = Some(routes);
        }
        self.routes.is_current = true;
    }

    /// Writes the kernel routes again where they are not as they were written. Those that are still to be written are
    /// not looked at: what was written before them is not wished any more.
    pub(crate) fn rewrite_routes(&mut self, realised: &RealisedRoutes, writer: &mut Writer) {
        let (Some(overlay), Some(written), true) = (
            &realised.overlay,
            &self.routes.written,
            self.routes.is_current,
        ) else {
            return;
        };
        let wished: BTreeSet<IpNet> = written.iter().map(|(range, _)| range.trunc()).collect();
        let found = realised.routes.iter();
        let found = found.filter(|(_, device)| device.as_ref() == Some(overlay));
        let found: BTreeSet<IpNet> = found.map(|(range, _)| *range).collect();
        let Some(first) = wished.symmetric_difference(&found).next() else {
            return;
        };
        tracing::warn!(route = %first, "kernel routes to other nodes' pods were changed by somebody else and are written again");
        // A failure is tried again like any other.
        self.routes = Routes::default();
        self.write_routes(writer);
    }
}
