//! The `CNI_*` variables that the runtime sets.

use crate::error::{CniError, codes};
use heddle_rpc::cni::PodArguments;
use std::path::{Path, PathBuf};

/// What the runtime wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it as it was attached?
    Check,
    /// Remove what is not listed.
    Gc,
    /// Can containers be attached?
    Status,
    /// Which versions are spoken?
    Version,
}

impl Command {
    const ALL: [(&'static str, Self); 6] = [
        ("ADD", Self::Add),
        ("DEL", Self::Del),
        ("CHECK", Self::Check),
        ("GC", Self::Gc),
        ("STATUS", Self::Status),
        ("VERSION", Self::Version),
    ];

    /// Its name in `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// The variables, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Environment {
    /// What the runtime wants.
    pub command: Command,
    /// Container id; empty for GC, STATUS and VERSION.
    pub container_id: String,
    /// The container's network namespace; DEL may come without.
    pub netns: Option<PathBuf>,
    /// Interface name in the container.
    pub interface: String,
    /// The pod, where the runtime is Kubernetes'.
    pub pod: Option<PodArguments>,
}

impl Environment {
    /// Reads the variables by `get`.
    ///
    /// # Errors
    /// Code 4: which variable, its value and what it must be.
    pub fn read(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let command = get("CNI_COMMAND").ok_or_else(|| {
            wrong(
                "CNI_COMMAND",
                "is not set: this is a CNI plugin, a container runtime starts it",
            )
        })?;
        let command = Command::ALL
            .into_iter()
            .find(|(name, _)| *name == command)
            .map(|(_, command)| command)
            .ok_or_else(|| {
                wrong(
                    "CNI_COMMAND",
                    &format!(
                        "{command:?} is none of {}",
                        Command::ALL.map(|(name, _)| name).join(", ")
                    ),
                )
            })?;
        let mut environment = Self {
            command,
            container_id: String::new(),
            netns: None,
            interface: String::new(),
            pod: None,
        };
        if matches!(command, Command::Gc | Command::Status | Command::Version) {
            return Ok(environment);
        }
        let required = |name: &str| {
            get(name)
                .ok_or_else(|| wrong(name, &format!("is not set; {} needs it", command.name())))
        };
        environment.container_id = required("CNI_CONTAINERID")?;
        check_container_id(&environment.container_id)?;
        environment.interface = required("CNI_IFNAME")?;
        check_interface(&environment.interface)?;
        if command == Command::Del {
            environment.netns = get("CNI_NETNS").map(PathBuf::from);
        } else {
            let netns = PathBuf::from(required("CNI_NETNS")?);
            let override_set = get("CNI_NETNS_OVERRIDE")
                .is_some_and(|value| matches!(value.as_str(), "1" | "true" | "TRUE" | "True"));
            check_netns(&netns, override_set)?;
            environment.netns = Some(netns);
        }
        environment.pod = match read_arguments(get("CNI_ARGS").as_deref().unwrap_or_default()) {
            Ok(pod) => pod,
            // A deletion needs no arguments; wrong ones must not keep a container from going away.
            Err(_) if command == Command::Del => None,
            Err(error) => return Err(error),
        };
        Ok(environment)
    }
}

/// The specification: begins with a letter or digit, then letters, digits, `_`, `.`, `-`.
fn check_container_id(id: &str) -> Result<(), CniError> {
    let good = id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if good {
        Ok(())
    } else {
        Err(wrong(
            "CNI_CONTAINERID",
            &format!(
                "{id:?} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'"
            ),
        ))
    }
}

/// What Linux takes as an interface name (`dev_valid_name`): 1 to 15 bytes, not `.` or `..`, no `/`, `:`
/// or space.
fn check_interface(name: &str) -> Result<(), CniError> {
    let good = name.len() <= 15
        && !matches!(name, "." | "..")
        && !name
            .chars()
            .any(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control());
    if good {
        Ok(())
    } else {
        Err(wrong(
            "CNI_IFNAME",
            &format!("{name:?} is not an interface name: at most 15 bytes, no '/', ':' or space"),
        ))
    }
}

fn check_netns(path: &Path, override_set: bool) -> Result<(), CniError> {
    use std::os::unix::fs::MetadataExt;
    if !path.is_absolute() {
        return Err(wrong(
            "CNI_NETNS",
            &format!("{:?} must be an absolute path", path.display()),
        ));
    }
    let theirs = std::fs::metadata(path)
        .map_err(|error| wrong("CNI_NETNS", &format!("{:?}: {error}", path.display())))?;
    if override_set {
        return Ok(());
    }
    if let Ok(ours) = std::fs::metadata("/proc/self/ns/net")
        && (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
    {
        return Err(wrong(
            "CNI_NETNS",
            &format!(
                "{:?} is the plugin's own network namespace; a host-network container is not attached",
                path.display()
            ),
        ));
    }
    Ok(())
}

/// Reads `CNI_ARGS`: `KEY=VALUE` pairs between semicolons; keys nobody knows are an error unless
/// `IgnoreUnknown` is set.
fn read_arguments(text: &str) -> Result<Option<PodArguments>, CniError> {
    let mut pod = PodArguments::default();
    let mut unknown = Vec::new();
    let mut ignore_unknown = false;
    for pair in text.split(';').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            wrong(
                "CNI_ARGS",
                &format!("{pair:?} is not of the form KEY=VALUE"),
            )
        })?;
        match key {
            "IgnoreUnknown" => {
                ignore_unknown = match value.to_ascii_lowercase().as_str() {
                    "1" | "true" => true,
                    "0" | "false" => false,
                    _ => {
                        return Err(wrong(
                            "CNI_ARGS",
                            &format!("IgnoreUnknown={value:?} must be 1, true, 0 or false"),
                        ));
                    }
                }
            }
            "K8S_POD_NAMESPACE" => pod.namespace = value.to_owned(),
            "K8S_POD_NAME" => pod.name = value.to_owned(),
            "K8S_POD_UID" => pod.uid = Some(value.to_owned()).filter(|uid| !uid.is_empty()),
            "K8S_POD_INFRA_CONTAINER_ID" => {}
            _ => unknown.push(key),
        }
    }
    if !unknown.is_empty() && !ignore_unknown {
        return Err(wrong(
            "CNI_ARGS",
            &format!(
                "unknown keys {}; put IgnoreUnknown=1 before them to have them ignored",
                unknown.join(", ")
            ),
        ));
    }
    match (pod.namespace.is_empty(), pod.name.is_empty()) {
        (true, true) => Ok(None),
        (false, false) => Ok(Some(pod)),
        _ => Err(wrong(
            "CNI_ARGS",
            "K8S_POD_NAMESPACE and K8S_POD_NAME belong together, one of them is missing",
        )),
    }
}

fn wrong(variable: &str, reason: &str) -> CniError {
    CniError::new(
        codes::INVALID_ENVIRONMENT,
        format!("environment variable {variable}: {reason}"),
    )
}
