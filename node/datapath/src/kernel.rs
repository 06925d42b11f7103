//! The real datapath.

use crate::{
    ConnectionRows, Counter, Datapath, DatapathError, Facts, Feature, FeatureState, LinkSpec,
    MapUse, PeerRow, PodLink, RealisedEndpoint, RealisedPolicy, RealisedRoutes, Settings,
    attach::{self, Attachment, Hook},
    batch, connections,
    conversion::{from_kernel, monotonic_seconds, peer_key, peer_row, peer_value, to_kernel},
    events::{self, Losses},
    maps::{Connections, IpcacheRows, Maps, lock, refused, room},
    netlink::{self, Link, Netlink, set_sysctl},
    node_addresses::NodeAddresses,
    object::{self, Pins},
    path::{self, NodeDevices, PathQuestion},
    pod_hooks::PodHooks,
    policy::Policies,
    routes,
    takeover::{OpenStep, Takeover},
};
use aya::{
    Ebpf,
    maps::{IterableMap as _, MapError},
};
use heddle_abi::{
    Address, ConnectionKey, Endpoint, Event, HOST_ENDPOINT, MAX_ENDPOINTS, METRIC_SLOTS,
    MetricSlot, NODE_HOST_POLICY, NODE_HOST_ROUTING, NODE_OVERLAY, NodeConfig, OVERLAY_PORT,
    map_names,
};
use heddle_policy::compiled::CompiledPolicy;
use heddle_verify::path::Seen;
use ipnet::IpNet;
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The overlay device.
const OVERLAY: &str = "heddle-vxlan";
/// The program that sees what the node itself sends.
const TO_NETWORK: &str = "to_network";
/// Bytes of the outer headers over IPv4 and over IPv6 (reference 3.4).
const OVERHEAD_IPV4: u32 = 50;
const OVERHEAD_IPV6: u32 = 70;
/// `ENOENT`: a map has no such key.
const NOT_FOUND: i32 = 2;
/// `E2BIG` and `ENOSPC`: a map is full.
const FULL: [i32; 2] = [7, 28];

/// The datapath of the node in whose network namespace it was opened.
///
/// Dropping it leaves everything in force: programs, links and maps are pinned.
pub struct KernelDatapath {
    settings: Settings,
    pins: Pins,
    hook: Hook,
    pub(crate) object: Arc<Mutex<Ebpf>>,
    pod_hooks: PodHooks,
    maps: Arc<Maps>,
    netlink: Netlink,
    addresses: NodeAddresses,
    uplink: Link,
    overlay: Option<Link>,
    policies: Policies,
    losses: Losses,
    ipcache_rows: IpcacheRows,
    /// Addresses whose connections are to be swept out.
    removed: Mutex<BTreeSet<Address>>,
    sweeping: Mutex<()>,
    /// Where endpoints' links are: endpoint id to its facts.
    known: Mutex<HashMap<u16, Facts>>,
}

/// Name of the host side of an endpoint's link.
pub fn link_name(endpoint: u16) -> String {
    format!("hd{endpoint}")
}

impl KernelDatapath {
    /// Opens the datapath: takes over what is pinned, replaces its programs in one step each, and
    /// attaches those of the node's own links.
    ///
    /// # Errors
    ///
    /// When the kernel refuses a program (with the verifier's words), a map or a link.
    pub fn open(settings: Settings) -> Result<Self, DatapathError> {
        Self::open_watched(settings, &|_| {})
    }

    /// Opens the datapath, and tells of each step of it that is done: for tests that end an open in between.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    #[doc(hidden)]
    pub fn open_watched(
        settings: Settings,
        done: &dyn Fn(OpenStep),
    ) -> Result<Self, DatapathError> {
        // Refuses, if it does, before anything is touched.
        let wished = [
            (map_names::CONNECTIONS, settings.max_connections),
            (map_names::ESTABLISHED, settings.max_connections),
            (map_names::IPCACHE, settings.max_ipcache_entries),
        ];
        let takeover = Takeover::survey(&settings.pin_dir, &wished)?;
        let netlink = Netlink::open()?;
        let uplink = netlink.link(&settings.uplink)?.ok_or_else(|| DatapathError::Failed {
            doing: "find uplink",
            object: settings.uplink.clone(),
            reason: "there is no such interface; set `uplink` to the one that leads to the other nodes"
                .to_owned(),
        })?;
        // Pods' packets come in by links whose routes back are all different.
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            set_sysctl(setting, "1");
        }
        set_sysctl("net/ipv4/conf/all/rp_filter", "0");
        let overlay = if settings.overlay {
            let overhead = if has_ipv4(&settings.uplink) {
                OVERHEAD_IPV4
            } else {
                OVERHEAD_IPV6
            };
            let link = netlink.ensure_overlay(OVERLAY, OVERLAY_PORT, uplink.mtu - overhead)?;
            set_sysctl(&format!("net/ipv4/conf/{OVERLAY}/rp_filter"), "0");
            Some(link)
        } else {
            netlink.remove_link(OVERLAY)?;
            None
        };
        let pins = Pins::open(&settings)?;
        takeover.share()?;
        done(OpenStep::MapsShared);
        let mut object = object::load(&takeover)?;
        done(OpenStep::MapsMade);
        takeover.fill()?;
        done(OpenStep::MapsFilled);
        takeover.adopt_links(&pins.links, &|| done(OpenStep::LinkAdopted))?;
        let maps = Arc::new(Maps::take(&mut object)?);
        let losses = Losses::default();
        losses.start(&maps)?;
        let policies = Policies::open(&maps, settings.max_policy_entries)?;
        let hook = attach::probe(settings.force_clsact);
        let object = Arc::new(Mutex::new(object));
        let pod_hooks = PodHooks::open(
            Arc::clone(&object),
            hook,
            settings.quick_attach,
            &pins.links,
        )?;
        let datapath = Self {
            hook,
            object,
            pod_hooks,
            maps,
            netlink,
            addresses: NodeAddresses::open()?,
            uplink,
            overlay,
            policies,
            losses,
            ipcache_rows: IpcacheRows::default(),
            removed: Mutex::default(),
            sweeping: Mutex::default(),
            known: Mutex::default(),
            settings,
            pins,
        };
        let has_host_policy = datapath.has_host_policy()?;
        // Where two versions' programs decide side by side, a connection stays in the table that both know.
        let share = datapath.settings.share_that_fits();
        let wished = datapath.settings.established_share;
        if share < wished {
            tracing::warn!(
                wished,
                share,
                max_connections = datapath.settings.max_connections,
                "establishedPerEndpoint is lowered, so that the shares of {} endpoints fit into maxConnections",
                Settings::ENDPOINTS_WITH_SHARES
            );
        }
        let share_meanwhile = if takeover.is_between_versions() {
            0
        } else {
            share
        };
        datapath.write_config(has_host_policy, share_meanwhile)?;
        done(OpenStep::Configured);
        for endpoint in datapath.endpoints()? {
            lock(&datapath.known).insert(endpoint.facts.endpoint, endpoint.facts);
        }
        datapath.attach_node(has_host_policy, &|| done(OpenStep::LinkMoved))?;
        let wanted = datapath.remove_other_hooks(has_host_policy)?;
        done(OpenStep::OtherHooksRemoved);
        takeover.finish(&datapath.pins.links, &wanted, done)?;
        if share != share_meanwhile {
            datapath.write_config(has_host_policy, share)?;
        }
        done(OpenStep::Opened);
        Ok(datapath)
    }

    /// Takes off what is attached by the other kind of hook (a former run was set to it, or was ended between
    /// the two); gives the names of the links' pins that are in use.
    fn remove_other_hooks(&self, has_host_policy: bool) -> Result<BTreeSet<String>, DatapathError> {
        let uplink = self.settings.uplink.as_str();
        let mut interfaces = vec![(uplink.to_owned(), true), (uplink.to_owned(), false)];
        if self.overlay.is_some() {
            interfaces.extend([(OVERLAY.to_owned(), true), (OVERLAY.to_owned(), false)]);
        }
        for endpoint in lock(&self.known).keys() {
            let name = link_name(*endpoint);
            if self.netlink.link(&name)?.is_some() {
                interfaces.extend([(name.clone(), true), (name, false)]);
            }
        }
        let mut wanted = BTreeSet::new();
        for (interface, ingress) in &interfaces {
            let what = Attachment {
                program: "",
                interface,
                ingress: *ingress,
            };
            let pin = what.pin(&self.pins.links);
            match self.hook {
                Hook::Clsact => attach::detach(Hook::Tcx, &self.pins.links, what)?,
                // A link that is still to be settled keeps its filters until then.
                Hook::Tcx if pin.exists() => attach::remove_clsact_filter(what)?,
                Hook::Tcx => {}
            }
            let unused = interface == uplink && !ingress && !has_host_policy;
            if let (Some(name), false) = (pin.file_name(), unused) {
                wanted.insert(name.to_string_lossy().into_owned());
            }
        }
        Ok(wanted)
    }

    /// The directory of the pinned maps.
    pub fn map_directory(&self) -> &std::path::Path {
        &self.pins.maps
    }

    /// What a program does with a frame on an interface, without sending it anywhere: the program's return
    /// code (0 pass, 2 drop, 7 redirect) and the frame as it left it. To be called in the node's network
    /// namespace.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the run (a frame shorter than an Ethernet header or than the IP header
    /// that it announces, an unknown interface).
    pub fn run_program(
        &self,
        program: &str,
        frame: &[u8],
        ifindex: u32,
    ) -> Result<(u32, Vec<u8>), DatapathError> {
        let run = attach::run(&mut lock(&self.object), program, frame, ifindex, 1)?;
        Ok((run.code, run.frame))
    }

    /// Whether host policies are about this node, as the kernel holds it.
    fn has_host_policy(&self) -> Result<bool, DatapathError> {
        Ok(self.policies.read(HOST_ENDPOINT as u16)?.entries.is_some())
    }

    fn write_config(
        &self,
        has_host_policy: bool,
        established_share: u32,
    ) -> Result<(), DatapathError> {
        let mut flags = if has_host_policy { NODE_HOST_POLICY } else { 0 };
        if self.settings.host_routing {
            flags |= NODE_HOST_ROUTING;
        }
        if self.overlay.is_some() {
            flags |= NODE_OVERLAY;
        }
        let config = NodeConfig {
            flags,
            uplink_ifindex: self.uplink.index,
            overlay_ifindex: self.overlay.as_ref().map_or(0, |link| link.index),
            report_interval: self.settings.report_interval,
            gateway_ipv4: self.settings.gateway_ipv4.into(),
            gateway_ipv6: self.settings.gateway_ipv6.into(),
            drop_event_rate: self.settings.drop_event_rate,
            trace_event_rate: self.settings.trace_event_rate,
            established_share,
            reserved: 0,
        };
        lock(&self.maps.config)
            .set(0, config, 0)
            .map_err(refused("write", "node configuration"))
    }

    /// Attaches the programs of the uplink and the overlay, and puts the new programs on every pod's
    /// link that has some; `moved` is called after each.
    fn attach_node(&self, has_host_policy: bool, moved: &dyn Fn()) -> Result<(), DatapathError> {
        let uplink = self.settings.uplink.clone();
        self.attach_program("from_network", &uplink, true)?;
        moved();
        if self.overlay.is_some() {
            self.attach_program("from_overlay", OVERLAY, true)?;
            moved();
            self.attach_program("to_overlay", OVERLAY, false)?;
            moved();
        }
        let endpoints: Vec<u16> = lock(&self.known).keys().copied().collect();
        for endpoint in endpoints {
            let name = link_name(endpoint);
            if self.netlink.link(&name)?.is_some() {
                self.pod_hooks.attach(&name)?;
                moved();
            }
        }
        if has_host_policy {
            self.attach_program(TO_NETWORK, &uplink, false)?;
            moved();
        }
        Ok(())
    }

    fn attach_program(
        &self,
        program: &str,
        interface: &str,
        ingress: bool,
    ) -> Result<(), DatapathError> {
        let what = Attachment {
            program,
            interface,
            ingress,
        };
        attach::attach(&mut lock(&self.object), self.hook, &self.pins.links, what)
    }

    fn gateways(&self, spec: &LinkSpec) -> Vec<IpAddr> {
        let v4 = spec.ipv4.map(|_| IpAddr::V4(self.settings.gateway_ipv4));
        let v6 = spec.ipv6.map(|_| IpAddr::V6(self.settings.gateway_ipv6));
        v4.into_iter().chain(v6).collect()
    }

    fn pod_mtu(&self) -> u32 {
        self.overlay
            .as_ref()
            .map_or(self.uplink.mtu, |link| link.mtu)
    }

    /// Sweeps out the connections of removed endpoints; whoever comes second finds nothing left to do.
    fn sweep_removed(&self) {
        let _one_at_a_time = lock(&self.sweeping);
        let removed = std::mem::take(&mut *lock(&self.removed));
        if removed.is_empty() {
            return;
        }
        connections::sweep(&self.maps, |key, _| {
            removed.contains(&key.low) || removed.contains(&key.high)
        });
    }
}

/// True when an interface has a global IPv4 address (the outer header then is IPv4).
fn has_ipv4(interface: &str) -> bool {
    nix::ifaddrs::getifaddrs().is_ok_and(|mut all| {
        all.any(|found| {
            found.interface_name == interface
                && found
                    .address
                    .is_some_and(|address| address.as_sockaddr_in().is_some())
        })
    })
}

/// A locally administered unicast MAC address (RFC 7042, 2.1).
fn random_mac() -> Result<[u8; 6], DatapathError> {
    let mut mac = [0; 6];
    getrandom::fill(&mut mac).map_err(|error| DatapathError::Failed {
        doing: "draw",
        object: "a MAC address".to_owned(),
        reason: error.to_string(),
    })?;
    mac[0] = (mac[0] & 0xfc) | 0x02;
    Ok(mac)
}

fn is_errno(error: &MapError, errno: &[i32]) -> bool {
    match error {
        MapError::SyscallError(error) => error
            .io_error
            .raw_os_error()
            .is_some_and(|code| errno.contains(&code)),
        MapError::KeyNotFound | MapError::ElementNotFound => errno.contains(&NOT_FOUND),
        _ => false,
    }
}

impl Datapath for KernelDatapath {
    fn create_link(&self, spec: &LinkSpec) -> Result<PodLink, DatapathError> {
        if u32::from(spec.endpoint) >= HOST_ENDPOINT || spec.endpoint == 0 {
            return Err(DatapathError::Failed {
                doing: "make link of endpoint",
                object: spec.endpoint.to_string(),
                reason: format!("endpoint ids are 1 to {}", HOST_ENDPOINT - 1),
            });
        }
        let netns = crate::netlink::open_namespace(&spec.netns)?;
        let name = link_name(spec.endpoint);
        self.netlink.remove_link(&name)?;
        let (mac, host_mac) = (random_mac()?, random_mac()?);
        let mtu = self.pod_mtu();
        self.netlink
            .add_pod_link(&name, host_mac, spec, mac, &netns, mtu)?;
        let made = netlink::configure_pod(spec, &netns, &self.gateways(spec))
            .and_then(|()| self.netlink.link(&name));
        match made {
            Ok(Some(link)) => Ok(PodLink {
                ifindex: link.index,
                name,
                mac,
                host_mac,
                mtu,
                gateways: self.gateways(spec),
            }),
            outcome => {
                self.netlink.remove_link(&name)?;
                outcome.and(Err(DatapathError::NoNamespace {
                    path: spec.netns.clone(),
                    reason: "the link vanished with it".to_owned(),
                }))
            }
        }
    }

    fn set_policy(&self, endpoint: u16, policy: &CompiledPolicy) -> Result<(), DatapathError> {
        self.policies.set(endpoint, policy)
    }

    fn set_node_policy(&self, policy: Option<&CompiledPolicy>) -> Result<(), DatapathError> {
        match policy {
            Some(policy) => {
                self.policies.set(HOST_ENDPOINT as u16, policy)?;
                self.attach_program(TO_NETWORK, &self.settings.uplink, false)?;
                // Last: from now on every hook asks.
                self.write_config(true, self.settings.share_that_fits())
            }
            None => {
                self.write_config(false, self.settings.share_that_fits())?;
                let what = Attachment {
                    program: TO_NETWORK,
                    interface: &self.settings.uplink,
                    ingress: false,
                };
                attach::detach(self.hook, &self.pins.links, what)?;
                self.policies.clear(HOST_ENDPOINT as u16)
            }
        }
    }

    fn policy_generation(&self, endpoint: u16) -> Result<u32, DatapathError> {
        self.policies.generation(match endpoint {
            0 => HOST_ENDPOINT as u16,
            pod => pod,
        })
    }

    fn node_policy(&self) -> Result<Option<RealisedPolicy>, DatapathError> {
        let realised = self.policies.read(HOST_ENDPOINT as u16)?;
        Ok(realised.entries.is_some().then_some(realised))
    }

    fn set_facts(&self, facts: &Facts) -> Result<(), DatapathError> {
        let object = || format!("endpoint {}", facts.endpoint);
        let value = to_kernel(facts);
        lock(&self.maps.devices)
            .insert(facts.ifindex, value, 0)
            .map_err(refused("write facts of", object()))?;
        let mut endpoints = lock(&self.maps.endpoints);
        for address in [value.ipv4, value.ipv6] {
            if !address.is_unspecified() {
                endpoints
                    .insert(address, value, 0)
                    .map_err(refused("write facts of", object()))?;
            }
        }
        lock(&self.known).insert(facts.endpoint, facts.clone());
        Ok(())
    }

    fn attach(&self, endpoint: u16, ifindex: u32) -> Result<(), DatapathError> {
        let name = link_name(endpoint);
        for setting in ["accept_dad", "accept_ra", "router_solicitations"] {
            set_sysctl(&format!("net/ipv6/conf/{name}/{setting}"), "0");
        }
        set_sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0");
        self.pod_hooks.attach(&name)?;
        self.netlink.up(ifindex)?;
        let facts = lock(&self.known).get(&endpoint).cloned();
        let Some(facts) = facts else { return Ok(()) };
        let addresses = [facts.ipv4.map(IpAddr::V4), facts.ipv6.map(IpAddr::V6)];
        for address in addresses.into_iter().flatten() {
            self.netlink.set_neighbour(ifindex, address, facts.mac)?;
            self.netlink.set_route(address.into(), ifindex)?;
        }
        Ok(())
    }

    fn remove_endpoint(&self, endpoint: u16) -> Result<(), DatapathError> {
        let name = link_name(endpoint);
        self.pod_hooks.forget(&name);
        self.netlink.remove_link(&name)?;
        self.pod_hooks.remove_pins(&name)?;
        lock(&self.known).remove(&endpoint);
        let mut gone = BTreeSet::new();
        let id = u32::from(endpoint);
        {
            let mut devices = lock(&self.maps.devices);
            let stale: Vec<u32> = devices
                .iter()
                .filter_map(Result::ok)
                .filter(|(_, value)| value.id == id)
                .map(|(ifindex, _)| ifindex)
                .collect();
            for ifindex in stale {
                let _ = devices.remove(&ifindex);
            }
            let mut endpoints = lock(&self.maps.endpoints);
            let stale: Vec<Address> = endpoints
                .iter()
                .filter_map(Result::ok)
                .filter(|(_, value)| value.id == id)
                .map(|(address, _)| address)
                .collect();
            for address in stale {
                let _ = endpoints.remove(&address);
                gone.insert(address);
            }
        }
        self.policies.clear(endpoint)?;
        lock(&self.removed).extend(gone);
        self.sweep_removed();
        Ok(())
    }

    fn set_peers(&self, rows: &[PeerRow]) -> Result<(), DatapathError> {
        let keys: Vec<_> = rows.iter().map(|row| peer_key(row.prefix)).collect();
        let values: Vec<_> = rows.iter().map(peer_value).collect();
        let ipcache = lock(&self.maps.ipcache);
        self.ipcache_rows.forget();
        batch::update(ipcache.map(), &keys, &values).map_err(|(written, error)| {
            if is_errno(&error, &FULL) {
                let max = u64::from(self.settings.max_ipcache_entries);
                return DatapathError::MapFull {
                    map: map_names::IPCACHE,
                    entries: max,
                    max,
                };
            }
            let row = rows
                .get(written)
                .map_or_else(String::new, |row| row.prefix.to_string());
            refused("write ipcache row", row)(error)
        })
    }

    fn remove_peers(&self, prefixes: &[IpNet]) -> Result<(), DatapathError> {
        let keys: Vec<_> = prefixes.iter().copied().map(peer_key).collect();
        let ipcache = lock(&self.maps.ipcache);
        self.ipcache_rows.forget();
        batch::remove(ipcache.map(), &keys).map_err(|(done, error)| {
            let row = prefixes
                .get(done)
                .map_or_else(String::new, IpNet::to_string);
            refused("remove ipcache row", row)(error)
        })
    }

    fn set_routes(&self, routes: &[(IpNet, IpAddr)]) -> Result<(), DatapathError> {
        // With a routed fabric the default route leads there; with an overlay its device does.
        let Some(overlay) = &self.overlay else {
            return Ok(());
        };
        let wished: BTreeSet<IpNet> = routes.iter().map(|(prefix, _)| prefix.trunc()).collect();
        let mut present = BTreeSet::new();
        for (prefix, route) in self.netlink.routes_by(overlay.index)? {
            if wished.contains(&prefix) {
                present.insert(prefix);
            } else {
                self.netlink.remove_route(route, &prefix.to_string())?;
            }
        }
        for prefix in wished.difference(&present) {
            self.netlink.set_route(*prefix, overlay.index)?;
        }
        Ok(())
    }

    fn routes(&self, prefixes: &BTreeSet<IpNet>) -> Result<Option<RealisedRoutes>, DatapathError> {
        let overlay = self.overlay.as_ref().map(|link| (OVERLAY, link.index));
        if overlay.is_none() && prefixes.is_empty() {
            // The tables of a router are long.
            return Ok(None);
        }
        routes::realised(&self.netlink, overlay, prefixes).map(Some)
    }

    fn node_addresses(&self, timeout: Duration) -> Result<BTreeSet<IpNet>, DatapathError> {
        self.addresses.wait(timeout)
    }

    fn path(&self, question: &PathQuestion) -> Result<Seen, DatapathError> {
        Ok(path::look(
            &self.netlink,
            &NodeDevices {
                host_routing: self.settings.host_routing,
                uplink: &self.settings.uplink,
                overlay: self.overlay.is_some().then_some(OVERLAY),
            },
            question,
        ))
    }

    fn poll_events(
        &self,
        timeout: Duration,
        events: &mut Vec<Event>,
    ) -> Result<(u64, u64), DatapathError> {
        events::poll_ring(&self.maps, timeout, events)?;
        self.losses.take(&self.maps)
    }

    fn collect_connections(&self) -> Result<(u64, u64), DatapathError> {
        let now = monotonic_seconds();
        connections::sweep_and_count(&self.maps, |_, entry| entry.expires < now)
    }

    fn endpoints(&self) -> Result<Vec<RealisedEndpoint>, DatapathError> {
        let devices: Vec<Endpoint> = lock(&self.maps.devices)
            .iter()
            .map(|row| row.map(|(_, value)| value))
            .collect::<Result<_, _>>()
            .map_err(refused("read", "endpoints"))?;
        devices
            .iter()
            .map(|value| {
                let facts = from_kernel(value);
                let name = link_name(facts.endpoint);
                let link = self.netlink.link(&name)?;
                let attached = self.pod_hooks.is_attached(&name)
                    && link.is_some_and(|link| link.index == facts.ifindex);
                Ok(RealisedEndpoint { facts, attached })
            })
            .collect()
    }

    fn policy(&self, endpoint: u16) -> Result<RealisedPolicy, DatapathError> {
        self.policies.read(endpoint)
    }

    fn peers(&self) -> Result<Vec<PeerRow>, DatapathError> {
        let mut rows = Vec::new();
        batch::read(lock(&self.maps.ipcache).map(), |key, value| {
            rows.extend(peer_row(key, value));
        })
        .map_err(refused("read", "ipcache"))?;
        rows.sort_by_key(|row| row.prefix);
        Ok(rows)
    }

    fn connections(
        &self,
        fits: &dyn Fn(&ConnectionKey) -> bool,
        limit: usize,
    ) -> Result<ConnectionRows, DatapathError> {
        connections::list(&self.maps, fits, limit)
    }

    fn metrics(&self) -> Result<Vec<Counter>, DatapathError> {
        let metrics = lock(&self.maps.metrics);
        let mut counters = Vec::new();
        for index in 0..METRIC_SLOTS {
            let per_cpu = metrics
                .get(&index, 0)
                .map_err(refused("read", "counters"))?;
            let sum = per_cpu
                .iter()
                .fold(MetricSlot::default(), |sum, slot| MetricSlot {
                    packets: sum.packets + slot.packets,
                    bytes: sum.bytes + slot.bytes,
                });
            if sum.packets != 0 {
                let reason = u8::try_from(index >> 1).unwrap_or(u8::MAX);
                counters.push(((reason, u8::from(index & 1 == 1)), sum));
            }
        }
        Ok(counters)
    }

    fn map_use(&self) -> Result<Vec<MapUse>, DatapathError> {
        let endpoints = lock(&self.maps.endpoints)
            .keys()
            .filter_map(Result::ok)
            .count() as u64;
        let ipcache = self.ipcache_rows.count(&self.maps)?;
        // Each lock is given back before the next is taken.
        let ipcache_room = room(lock(&self.maps.ipcache).map(), map_names::IPCACHE)?;
        let table_use = |table: &Mutex<Connections>, name| {
            let table = lock(table);
            Ok::<_, DatapathError>((connections::count(&table, name)?, room(table.map(), name)?))
        };
        let (connections, connection_room) =
            table_use(&self.maps.connections, map_names::CONNECTIONS)?;
        let (established, established_room) =
            table_use(&self.maps.established, map_names::ESTABLISHED)?;
        let (policies, policy_room) = self.policies.largest()?;
        let (slots, max_slots) = self.policies.slots_in_use();
        let row = |name: &str, entries, max| MapUse {
            name: name.to_owned(),
            entries,
            max,
        };
        Ok(vec![
            row(
                map_names::ENDPOINTS,
                endpoints,
                u64::from(MAX_ENDPOINTS) * 2,
            ),
            row(map_names::IPCACHE, ipcache, ipcache_room),
            row(map_names::CONNECTIONS, connections, connection_room),
            row(map_names::ESTABLISHED, established, established_room),
            row(map_names::POLICIES, policies, policy_room),
            row("POLICY_SLOTS", slots, max_slots),
        ])
    }

    fn features(&self) -> Vec<Feature> {
        let feature = |name: &str, state, why: &str| Feature {
            name: name.to_owned(),
            state,
            why: why.to_owned(),
        };
        let switch = |on| {
            if on {
                FeatureState::On
            } else {
                FeatureState::Off
            }
        };
        vec![
            match (self.hook, self.settings.force_clsact) {
                (Hook::Tcx, _) => feature("tcx", FeatureState::On, ""),
                (Hook::Clsact, true) => feature("tcx", FeatureState::Off, "clsact is configured"),
                (Hook::Clsact, false) => feature(
                    "tcx",
                    FeatureState::Unavailable,
                    "Linux before 6.6; clsact is used",
                ),
            },
            feature(
                "host-routing",
                switch(self.settings.host_routing),
                if self.settings.host_routing {
                    ""
                } else {
                    "host-routing: off is configured"
                },
            ),
            feature(
                "overlay",
                switch(self.overlay.is_some()),
                if self.overlay.is_some() {
                    ""
                } else {
                    "the fabric is routed"
                },
            ),
        ]
    }

    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME);
        now.map_or(0, |time| {
            u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
                + u64::try_from(time.tv_nsec()).unwrap_or(0)
        })
    }
}
