//! A naive evaluator, written rule by rule from the words of the specifications.

use crate::model::{
    By, End, Group, Level, Line, Mode, Pod, SERVICE_NAMESPACES, Says, Service, Sheet, What, Who,
    World,
};
use heddle_policy::Because;

fn speaks(transport: &str, protocol: u8) -> bool {
    match transport {
        "TCP" => protocol == 6,
        "UDP" => protocol == 17,
        "SCTP" => protocol == 132,
        _ => [6, 17, 132].contains(&protocol),
    }
}

struct Packet<'a> {
    world: &'a World,
    subject: usize,
    peer: &'a End,
    ingress: bool,
    protocol: u8,
    port: u16,
}

impl Packet<'_> {
    /// The ports are those of a rule. Towards an address a name means nothing, because no pod was named.
    fn ports_match(&self, line: &Line, named_a_pod: bool) -> bool {
        let Some(list) = &line.what else { return true };
        let receiver: Option<&Pod> = match (self.ingress, self.peer) {
            (true, _) => self.world.pods.get(self.subject),
            (false, End::Pod(pod)) => Some(&self.world.pods[*pod]),
            _ => None,
        };
        list.iter().any(|what| match what {
            What::Ports(transport, low, high) => {
                speaks(transport, self.protocol) && (*low..=*high).contains(&self.port)
            }
            What::Name(transport) => {
                speaks(transport, self.protocol)
                    && (self.ingress || named_a_pod)
                    && receiver.is_some_and(|pod| pod.web == Some((self.protocol, self.port)))
            }
            What::Icmp(kind) => self.protocol == 1 && self.port == u16::from(*kind),
        })
    }

    fn is_pod_of(&self, namespace: &str, app: &str) -> bool {
        matches!(self.peer, End::Pod(pod)
            if self.world.pods[*pod].namespace == namespace && self.world.pods[*pod].app == app)
    }

    fn matches(&self, line: &Line) -> bool {
        let Some(list) = &line.who else {
            return self.ports_match(line, true);
        };
        list.iter().any(|who| match who {
            Who::Pods {
                namespace,
                app,
                not,
            } => {
                let End::Pod(pod) = self.peer else {
                    return false;
                };
                let pod = &self.world.pods[*pod];
                namespace.is_none_or(|namespace| namespace == pod.namespace)
                    && app.is_none_or(|app| (app == pod.app) != *not)
                    && self.ports_match(line, true)
            }
            Who::Addresses {
                block,
                holes,
                kubernetes,
            } => {
                let (address, six) = match self.peer {
                    End::World(address, six) => (*address, *six),
                    inside if *kubernetes => match inside.cluster_address(&self.world.pods) {
                        Some(address) => (address, false),
                        None => return false,
                    },
                    _ => return false,
                };
                block.holds(address, six)
                    && !holes.iter().any(|hole| hole.holds(address, six))
                    // An address of the cluster may be a pod's, which knows its names.
                    && self.ports_match(line, true)
            }
            Who::Listed { by, holes } => {
                let End::World(address, six) = self.peer else {
                    return false;
                };
                let listed = |group: &Group| group.blocks.iter().any(|b| b.holds(*address, *six));
                self.groups(by).any(listed)
                    && !holes.iter().any(|hole| hole.holds(*address, *six))
                    && self.ports_match(line, false)
            }
            Who::Served(by) => self
                .services(by)
                .any(|(namespace, service)| match service.app {
                    Some(app) => self.is_pod_of(namespace, app) && self.ports_match(line, true),
                    None => {
                        matches!(self.peer, End::World(address, six)
                        if service.addresses.iter().any(|b| b.holds(*address, *six)))
                            && self.ports_match(line, false)
                    }
                }),
            Who::Nodes(kind) => {
                let node = self.peer.node_kind();
                node.is_some_and(|node| kind.is_none_or(|kind| kind == node))
                    && self.ports_match(line, false)
            }
            Who::Entity(entity) => {
                let stands_for = match *entity {
                    "all" => true,
                    "world" => matches!(self.peer, End::World(..)),
                    "cluster" => !matches!(self.peer, End::World(..)),
                    "host" => matches!(self.peer, End::Host),
                    "remote-node" => matches!(self.peer, End::Remote | End::ApiServer),
                    "kube-apiserver" => matches!(self.peer, End::ApiServer),
                    "unmanaged" => matches!(self.peer, End::Unmanaged(_)),
                    _ => false,
                };
                stands_for && self.ports_match(line, true)
            }
        })
    }

    fn groups(&self, by: &By) -> impl Iterator<Item = &Group> {
        let by = by.clone();
        self.world
            .groups
            .iter()
            .enumerate()
            .filter_map(|(number, group)| Some((number, group.as_ref()?)))
            .filter(move |(number, group)| match by {
                By::Name(wanted) => wanted == *number,
                By::Label(kind) => kind == group.kind,
            })
            .map(|(_, group)| group)
    }

    fn services(&self, by: &By) -> impl Iterator<Item = (&'static str, &Service)> {
        let by = by.clone();
        self.world
            .services
            .iter()
            .enumerate()
            .filter_map(|(number, service)| Some((number, service.as_ref()?)))
            .filter(move |(number, service)| match by {
                By::Name(wanted) => wanted == *number,
                By::Label(kind) => kind == service.kind,
            })
            .map(|(number, service)| (SERVICE_NAMESPACES[number % 2], service))
    }

    /// One ordered tier: position after position; `None` when nothing decides or a pass is met.
    fn ordered(&self, sheets: &[(i32, &Sheet)]) -> Option<bool> {
        let mut positions: Vec<(i32, usize)> = Vec::new();
        for (priority, sheet) in sheets {
            positions.extend((0..sheet.lines.len()).map(|index| (*priority, index)));
        }
        positions.sort_unstable();
        positions.dedup();
        for (priority, index) in positions {
            let mut met: Vec<Says> = Vec::new();
            for (known, sheet) in sheets {
                let mut list = sheet.lines.iter().filter(|l| l.ingress == self.ingress);
                if *known == priority
                    && let Some(line) = list.nth(index)
                    && self.matches(line)
                {
                    met.push(line.says);
                }
            }
            if met.contains(&Says::Deny) {
                return Some(false);
            }
            if met.contains(&Says::Allow) {
                return Some(true);
            }
            if met.contains(&Says::Pass) {
                return None;
            }
        }
        None
    }
}

const fn by_rule(allowed: bool) -> (bool, Because) {
    if allowed {
        (true, Because::Rule)
    } else {
        (false, Because::ExplicitDeny)
    }
}

pub(crate) fn oracle(
    world: &World,
    subject: usize,
    peer: &End,
    ingress: bool,
    protocol: u8,
    port: u16,
) -> (bool, Because) {
    if world.mode == Mode::Never {
        return (true, Because::NotEnforced);
    }
    let packet = Packet {
        world,
        subject,
        peer,
        ingress,
        protocol,
        port,
    };
    let default_deny = if ingress && matches!(peer, End::Host) {
        (true, Because::Reserved)
    } else {
        (false, Because::DefaultDeny)
    };
    let mine = || {
        let pod = world.pods.get(subject);
        world.sheets.iter().filter(move |sheet| sheet.is_about(pod))
    };
    let admin: Vec<(i32, &Sheet)> = mine()
        .filter_map(|sheet| match sheet.level {
            Level::Admin(priority) => Some((priority, sheet)),
            _ => None,
        })
        .collect();
    if let Some(allowed) = packet.ordered(&admin) {
        return by_rule(allowed);
    }
    let normal: Vec<&Sheet> = mine().filter(|s| s.level == Level::Normal).collect();
    let hit = |says: Says| {
        normal
            .iter()
            .flat_map(|sheet| &sheet.lines)
            .any(|line| line.says == says && line.ingress == ingress && packet.matches(line))
    };
    if hit(Says::Deny) {
        return by_rule(false);
    }
    if hit(Says::Allow) {
        return by_rule(true);
    }
    if normal
        .iter()
        .any(|s| if ingress { s.isolates.0 } else { s.isolates.1 })
    {
        return default_deny;
    }
    let baseline: Vec<(i32, &Sheet)> = mine()
        .filter_map(|sheet| match sheet.level {
            Level::Baseline(priority) => Some((priority, sheet)),
            _ => None,
        })
        .collect();
    if let Some(allowed) = packet.ordered(&baseline) {
        return by_rule(allowed);
    }
    match world.mode {
        // A node that no policy isolates stays open.
        Mode::Always if subject < world.pods.len() => default_deny,
        _ => (true, Because::NotEnforced),
    }
}
