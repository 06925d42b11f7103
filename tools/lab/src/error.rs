//! What can go wrong in a lab, in the operator's words.

use heddle_kube::manifest::ManifestError;
use heddle_kube::store::StoreError;
use std::path::{Path, PathBuf};

/// A lab command's refusal or failure.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces, cgroups and links need root.
    #[error("a lab needs root: {what} was refused")]
    NotRoot {
        /// What was tried.
        what: String,
    },
    /// Labs belong to root, and who asks is not root.
    #[error("{} is readable by root only", .path.display())]
    RootOnly {
        /// What cannot be read.
        path: PathBuf,
    },
    /// No lab of this name.
    #[error("there is no lab named {0}")]
    UnknownLab(String),
    /// The lab is there already, with another shape.
    #[error("lab {lab} is up already and differs in {differs}")]
    Exists {
        /// The lab.
        lab: String,
        /// The settings in which it differs.
        differs: String,
    },
    /// The name cannot be a lab's.
    #[error("{name:?} cannot be the name of a lab: {reason}")]
    BadName {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A setting of the lab is wrong.
    #[error("{origin}: {field}: {reason}")]
    Config {
        /// The file, or "command line".
        origin: String,
        /// The field.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// The kernel, or what is mounted, lacks something.
    #[error("this machine cannot carry a lab: {what}: {reason}")]
    Host {
        /// What is missing.
        what: String,
        /// Why.
        reason: String,
    },
    /// `/` is a plain folder of some mount, as after chroot.
    #[error(
        "this machine cannot carry a lab: / is not a mount point, so pods cannot have mounts of their own \
         (this looks like a chroot)"
    )]
    RootNotMounted,
    /// A file could not be read or written.
    #[error("could not {doing} {path}: {source}")]
    File {
        /// Verb phrase.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A kernel request failed.
    #[error("could not {doing}: {source}")]
    System {
        /// Verb phrase with its object.
        doing: String,
        /// Why.
        source: std::io::Error,
    },
    /// A netlink request failed.
    #[error("could not {doing}: {reason}")]
    Network {
        /// Verb phrase with its object.
        doing: String,
        /// Why.
        reason: String,
    },
    /// Something did not happen in time.
    #[error("{what} after {seconds} s: {state}")]
    Timeout {
        /// What was waited for, as "node-2's agent is not ready".
        what: String,
        /// Seconds waited.
        seconds: u64,
        /// What was seen instead.
        state: String,
        /// What to try.
        help: String,
    },
    /// A host policy is in the store and not in force: it would cut off a node.
    #[error(
        "{policy} is not in force on {node}: it would cut {traffic}; the node's former policy stays"
    )]
    LockOut {
        /// The policy.
        policy: String,
        /// The node.
        node: String,
        /// What the node needs.
        traffic: String,
    },
    /// Something of what was applied does not fit on a node.
    #[error("{object} is not wholly in force on {node}: {what}: {reason}")]
    DoesNotFit {
        /// What was applied.
        object: String,
        /// What does not fit.
        what: String,
        /// The node.
        node: String,
        /// Why, in the agent's words.
        reason: String,
    },
    /// One of the lab's own processes ended.
    #[error("{process} ended: {reason}")]
    ProcessEnded {
        /// Which.
        process: String,
        /// How, and the last lines of its log.
        reason: String,
    },
    /// The lab daemon does not answer.
    #[error("the daemon of lab {lab} does not answer: {reason}")]
    Daemon {
        /// The lab.
        lab: String,
        /// Why.
        reason: String,
    },
    /// An agent does not answer, or refused.
    #[error("the agent of {node}: {reason}")]
    Agent {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The store refused or failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// An object in a manifest is wrong.
    #[error("{file}: document {document}: {object}: {field}: {reason}")]
    BadObject {
        /// Stable code.
        code: String,
        /// The manifest.
        file: String,
        /// Number of the document in it, from 1.
        document: usize,
        /// `Kind namespace/name`.
        object: String,
        /// Path of the field.
        field: String,
        /// What is wrong with it.
        reason: String,
        /// What to try.
        help: String,
    },
    /// Manifests cannot be read.
    #[error("{0}")]
    BadManifest(#[from] ManifestError),
    /// No such pod, node, container or object.
    #[error("{what} does not exist in lab {lab}")]
    NotFound {
        /// What.
        what: String,
        /// The lab.
        lab: String,
        /// What to try.
        help: String,
    },
    /// The lab, or everything in it, stands on it.
    #[error("{what} cannot be deleted: {reason}")]
    Protected {
        /// What.
        what: String,
        /// Why not.
        reason: &'static str,
        /// What to try.
        help: String,
    },
    /// It was ended from outside, by a signal.
    #[error("{what} was interrupted")]
    Interrupted {
        /// What.
        what: String,
    },
    /// A lab of another mode than a test is about.
    #[error("this lab cannot be tested: {reason}")]
    Untestable {
        /// Why.
        reason: String,
    },
    /// An argument cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// A command could not be started in a namespace.
    #[error("could not start {command:?} in {place}: {source}")]
    Start {
        /// The command.
        command: String,
        /// Where.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// A CNI plugin refused or failed.
    #[error("CNI {verb} by {plugin} failed: {reason}")]
    Cni {
        /// ADD, DEL.
        verb: &'static str,
        /// The plugin.
        plugin: String,
        /// Its error code (0 when it gave none).
        cni_code: u32,
        /// Its message.
        reason: String,
    },
}

impl LabError {
    /// A file error.
    pub fn file(doing: &'static str, path: &Path, source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::PermissionDenied
            && !nix::unistd::geteuid().is_root()
        {
            let labs = Path::new(crate::paths::LABS);
            return Self::RootOnly {
                path: if path.starts_with(labs) { labs } else { path }.to_owned(),
            };
        }
        Self::File {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// A refused system call; a missing privilege is said as such.
    pub fn system(doing: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        let (doing, source) = (doing.into(), source.into());
        if source.kind() == std::io::ErrorKind::PermissionDenied
            && !nix::unistd::geteuid().is_root()
        {
            return Self::NotRoot { what: doing };
        }
        Self::System { doing, source }
    }

    /// Stable code: `area/what`.
    pub fn code(&self) -> String {
        match self {
            Self::NotRoot { .. } | Self::RootOnly { .. } => "lab/not-root",
            Self::UnknownLab(_) => "lab/unknown-lab",
            Self::Exists { .. } => "lab/exists",
            Self::BadName { .. } => "lab/bad-name",
            Self::Config { .. } => "lab/bad-config",
            Self::Host { .. } => "lab/host-lacks",
            Self::RootNotMounted => "lab/root-not-mounted",
            Self::File { .. } => "lab/file",
            Self::System { .. } => "lab/system",
            Self::Network { .. } => "lab/network",
            Self::Timeout { .. } => "lab/timeout",
            Self::LockOut { .. } => "policy/lock-out",
            Self::DoesNotFit { .. } => "policy/does-not-fit",
            Self::ProcessEnded { .. } => "lab/process-ended",
            Self::Daemon { .. } => "lab/daemon-unreachable",
            Self::Agent { .. } => "lab/agent",
            Self::Store(error) => match error {
                StoreError::NotFound { .. } => "store/not-found",
                StoreError::AlreadyExists { .. } => "store/already-exists",
                StoreError::Conflict { .. } => "store/conflict",
                StoreError::Invalid { .. } => "store/invalid",
                StoreError::Unavailable { .. } => "store/unavailable",
                StoreError::NotSaved { .. } => "store/not-saved",
                StoreError::Corrupt { .. } => "store/corrupt",
            },
            Self::BadObject { code, .. } => code,
            Self::BadManifest(error) => error.code(),
            Self::NotFound { .. } => "lab/not-found",
            Self::Protected { .. } => "lab/protected",
            Self::Interrupted { .. } => "lab/interrupted",
            Self::Untestable { .. } => "lab/untestable",
            Self::Usage(_) => "lab/usage",
            Self::Start { .. } => "lab/cannot-start",
            Self::Cni { .. } => "lab/cni-failed",
        }
        .to_owned()
    }

    /// What to try.
    pub fn help(&self) -> String {
        match self {
            Self::NotRoot { .. } => "run the command as root (sudo)".into(),
            Self::RootOnly { .. } => "use sudo".into(),
            Self::DoesNotFit { .. } => {
                "make it smaller, or raise the limit that is named (docs/policy.md, Bounds); nothing was opened".into()
            }
            Self::LockOut { .. } => {
                "allow that traffic, or annotate the policy heddle.dev/allow-lock-out: \"true\" if it is to be cut"
                    .into()
            }
            Self::UnknownLab(name) => {
                format!(
                    "`heddle lab up --lab {name}` makes it; `--lab` or HEDDLE_LAB choose another"
                )
            }
            Self::Exists { lab, .. } => {
                format!("`heddle lab down --lab {lab}` first, or choose another name with --lab")
            }
            Self::BadName { .. } => {
                "use at most 32 of a-z, 0-9 and -, beginning with a letter".into()
            }
            Self::Daemon { lab, .. } => format!(
                "see /run/heddle/labs/{lab}/logs/daemon.log; `heddle lab down --lab {lab}` and `up` start over"
            ),
            Self::Agent { node, .. } => {
                format!("`heddle lab agent start {node}`; its log is in the lab's logs folder")
            }
            Self::Store(StoreError::Unavailable { .. }) => {
                "is the lab up? `heddle lab status` shows it".into()
            }
            Self::Store(error) => error.help().into(),
            Self::BadManifest(error) => error.help().into(),
            Self::BadObject { field, help, .. } if help.is_empty() => {
                format!("correct {field} in the manifest; nothing was changed")
            }
            Self::Timeout { help, .. }
            | Self::NotFound { help, .. }
            | Self::Protected { help, .. }
            | Self::BadObject { help, .. } => help.clone(),
            Self::Config { .. } => {
                "correct the setting; `heddle lab up --help` names the flags, docs/lab.md a file's keys"
                    .into()
            }
            Self::Interrupted { .. } => "what it made is removed; run it again".into(),
            Self::Untestable { .. } => {
                "bring up another lab without that setting: `heddle lab up --lab NAME`".into()
            }
            Self::Usage(_) => "`heddle lab --help` names the commands and their arguments".into(),
            Self::Host { .. } => {
                "a lab needs Linux 6.1 or newer with cgroup2, bpffs and network namespaces".into()
            }
            Self::RootNotMounted => {
                "before chroot, bind the folder on itself (mount --bind DIR DIR); or enter it with pivot_root, or run in a container"
                    .into()
            }
            Self::File { path, .. } => format!(
                "see that {} is there, may be used, and that its file system has room",
                path.display()
            ),
            Self::System { .. } | Self::Network { .. } => {
                "the kernel's own words are above; `heddle lab down` removes what is half made".into()
            }
            Self::ProcessEnded { .. } => {
                "its log is in the lab's logs folder, under /run/heddle/labs".into()
            }
            Self::Cni { plugin, .. } => format!(
                "see what {plugin} says above; `heddle status --node NODE` shows how the node is"
            ),
            Self::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "pods use the host's file system: is the program installed and in PATH?".into()
            }
            Self::Start { .. } => "may the program be executed, and is the pod still there?".into(),
        }
    }

    /// The object it failed on.
    pub fn object(&self) -> String {
        match self {
            Self::BadObject { object, .. } => object.clone(),
            Self::Agent { node, .. } => format!("node/{node}"),
            Self::UnknownLab(lab) | Self::Exists { lab, .. } | Self::Daemon { lab, .. } => {
                format!("lab/{lab}")
            }
            Self::NotFound { what, .. } => what.clone(),
            Self::Config { origin, .. } => origin.clone(),
            Self::File { path, .. } => path.display().to_string(),
            _ => String::new(),
        }
    }

    /// The field that is wrong.
    pub fn field(&self) -> String {
        match self {
            Self::BadObject { field, .. } | Self::Config { field, .. } => field.clone(),
            Self::Store(StoreError::Invalid { field, .. }) => field.clone(),
            _ => String::new(),
        }
    }

    /// True for a wrong command line (exit code 2).
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Usage(_) | Self::BadName { .. } | Self::Config { .. }
        )
    }
}
