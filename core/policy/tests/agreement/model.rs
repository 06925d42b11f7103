//! Policies and clusters as plain data; nothing here is shared with the engine.

/// A pod, and its place in the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Pod {
    pub(crate) namespace: &'static str,
    pub(crate) app: &'static str,
    /// What the name `web` means here.
    pub(crate) web: Option<(u8, u16)>,
    /// Pods of one identity have different addresses.
    pub(crate) address: u32,
}

/// Addresses with the leading bits of `base`, of IPv4 or of a corner of IPv6 that looks like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) base: u32,
    pub(crate) length: u8,
    pub(crate) six: bool,
}

impl Block {
    pub(crate) fn holds(&self, address: u32, six: bool) -> bool {
        self.six == six
            && (self.length == 0 || (address ^ self.base) >> (32 - u32::from(self.length)) == 0)
    }

    pub(crate) fn inside(&self, outer: &Self) -> bool {
        self.length >= outer.length && outer.holds(self.base, self.six)
    }
}

/// How a rule names groups or services.
#[derive(Clone, Debug)]
pub(crate) enum By {
    Name(usize),
    /// By the label `kind`.
    Label(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum Who {
    Pods {
        namespace: Option<&'static str>,
        app: Option<&'static str>,
        not: bool,
    },
    Addresses {
        block: Block,
        holes: Vec<Block>,
        kubernetes: bool,
    },
    Listed {
        by: By,
        holes: Vec<Block>,
    },
    Served(By),
    /// By the label `kind`; `None`: all.
    Nodes(Option<&'static str>),
    Entity(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Ports(&'static str, u16, u16),
    Name(&'static str),
    Icmp(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Says {
    Allow,
    Deny,
    Pass,
}

#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) says: Says,
    pub(crate) ingress: bool,
    pub(crate) who: Option<Vec<Who>>,
    pub(crate) what: Option<Vec<What>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Admin(i32),
    Normal,
    Baseline(i32),
}

#[derive(Clone, Debug)]
pub(crate) struct Sheet {
    pub(crate) level: Level,
    /// `None` only for cluster-wide policies.
    pub(crate) namespace: Option<&'static str>,
    pub(crate) app: Option<&'static str>,
    /// It is about nodes of this kind, and no pods.
    pub(crate) node: Option<&'static str>,
    pub(crate) isolates: (bool, bool),
    pub(crate) lines: Vec<Line>,
}

impl Sheet {
    /// `None`: the node itself.
    pub(crate) fn is_about(&self, pod: Option<&Pod>) -> bool {
        let Some(pod) = pod else {
            return self.node == Some(OWN_KIND);
        };
        self.node.is_none()
            && self
                .namespace
                .is_none_or(|namespace| namespace == pod.namespace)
            && self.app.is_none_or(|app| app == pod.app)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) kind: &'static str,
    pub(crate) blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) kind: &'static str,
    /// The pods behind it, by `app`.
    pub(crate) app: Option<&'static str>,
    pub(crate) addresses: Vec<Block>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Default,
    Always,
    Never,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) pods: Vec<Pod>,
    pub(crate) sheets: Vec<Sheet>,
    pub(crate) groups: Vec<Option<Group>>,
    pub(crate) services: Vec<Option<Service>>,
    pub(crate) mode: Mode,
}

/// The namespace of each service, by its number.
pub(crate) const SERVICE_NAMESPACES: [&str; 2] = ["a", "b"];

/// The other end, and what is known of it.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Pod(usize),
    Host,
    Remote,
    ApiServer,
    /// An address in a pod range that nobody is known to have.
    Unmanaged(u32),
    World(u32, bool),
}

pub(crate) const POD_RANGE: Block = Block {
    base: 0x0a00_0000,
    length: 16,
    six: false,
};
/// The kind of the own node and of the API server's; that of the other is `l`.
pub(crate) const OWN_KIND: &str = "k";
pub(crate) const HOST: u32 = 0x0a00_0002;
pub(crate) const REMOTE: u32 = 0x0a00_0083;
pub(crate) const API_SERVER: u32 = 0xc000_0202;

impl World {
    /// Those whose policy may be asked: the pods, and the own node as the last.
    pub(crate) fn subjects(&self) -> std::ops::RangeInclusive<usize> {
        0..=self.pods.len()
    }
}

impl End {
    /// The kind of a node.
    pub(crate) const fn node_kind(&self) -> Option<&'static str> {
        match self {
            Self::Host | Self::ApiServer => Some(OWN_KIND),
            Self::Remote => Some("l"),
            _ => None,
        }
    }

    /// Its address, where it is one of the cluster.
    pub(crate) fn cluster_address(&self, pods: &[Pod]) -> Option<u32> {
        match self {
            Self::Pod(pod) => Some(pods[*pod].address),
            Self::Host => Some(HOST),
            Self::Remote => Some(REMOTE),
            Self::ApiServer => Some(API_SERVER),
            Self::Unmanaged(address) => Some(*address),
            Self::World(..) => None,
        }
    }
}
