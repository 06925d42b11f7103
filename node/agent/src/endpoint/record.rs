//! What the agent keeps on disk about each endpoint, so that a crash between any two steps leaks nothing.

use heddle_model::NamespacedName;
use heddle_rpc::cni::Attachment;
use heddle_rpc::durable::{file_stem, make_private_directory, replace_file};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Which interface of which container: what an ADD, CHECK or DEL is about.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttachmentKey {
    pub(crate) container_id: String,
    pub(crate) interface: String,
}

impl std::fmt::Display for AttachmentKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.container_id, self.interface)
    }
}

/// How far an endpoint has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// An ADD has begun; without an agent that works on it, it is undone.
    Adding,
    /// The ADD was answered.
    Attached,
    /// A DEL has begun; it is finished whatever happens.
    Removing,
}

/// The host side of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LinkRecord {
    pub(crate) ifindex: u32,
    pub(crate) mac: [u8; 6],
    pub(crate) host_mac: [u8; 6],
}

/// One endpoint's file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// Version of this layout.
    pub(crate) version: u32,
    #[serde(flatten)]
    pub(crate) key: AttachmentKey,
    pub(crate) phase: Phase,
    pub(crate) endpoint: u16,
    pub(crate) netns: PathBuf,
    pub(crate) pod: NamespacedName,
    #[serde(default)]
    pub(crate) pod_uid: Option<String>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// Generation of the address lease.
    #[serde(default)]
    pub(crate) generation: u64,
    /// Identity when it was attached: what holds until the store is heard again after a restart.
    #[serde(default)]
    pub(crate) identity: u32,
    /// The labels of that identity: they hold when the number went to other labels meanwhile.
    #[serde(default)]
    pub(crate) labels: Vec<String>,
    #[serde(default)]
    pub(crate) link: Option<LinkRecord>,
    /// The answer to the ADD, for when it is asked again.
    #[serde(default)]
    pub(crate) attachment: Option<Attachment>,
}

impl Record {
    pub(crate) const VERSION: u32 = 1;

    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let (v4, v6) = (self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6));
        v4.into_iter().chain(v6)
    }
}

/// A file that cannot be read as a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DamagedRecord {
    /// Where it was moved to.
    pub(crate) path: PathBuf,
    /// What was found.
    pub(crate) reason: String,
    /// Endpoint and attachment, as the file's name has them.
    pub(crate) named: Option<(u16, AttachmentKey)>,
    /// The file's name without endings: it tells the attachment even where it was shortened.
    pub(crate) stem: String,
}

/// The directory of endpoint files. They are not synced to the disk: they have to outlive the agent, and
/// after a power failure there is no pod for them to be about.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    directory: PathBuf,
}

impl Records {
    /// Opens the directory under `state_dir`, making it when it is missing.
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let directory = state_dir.join("endpoints");
        make_private_directory(&directory)?;
        Ok(Self { directory })
    }

    fn path(&self, endpoint: u16, key: &AttachmentKey) -> PathBuf {
        // The endpoint id and the attachment stand in the name too: a damaged file still tells them.
        let stem = file_stem(&key.container_id, &key.interface);
        self.directory.join(format!("{endpoint}-{stem}.json"))
    }

    /// Whether a damaged file's name is that of an attachment.
    pub(crate) fn is_about(stem: &str, key: &AttachmentKey) -> bool {
        let wanted = file_stem(&key.container_id, &key.interface);
        stem.split_once('-')
            .is_some_and(|(_, of_key)| of_key == wanted)
    }

    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let content = serde_json::to_vec(record)?;
        replace_file(&self.path(record.endpoint, &record.key), &content)
    }

    pub(crate) fn remove(&self, endpoint: u16, key: &AttachmentKey) -> io::Result<()> {
        match fs::remove_file(self.path(endpoint, key)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Every record. A damaged file is set aside beside the others, never deleted.
    pub(crate) fn load(&self) -> io::Result<(Vec<Record>, Vec<DamagedRecord>)> {
        let mut records = Vec::new();
        let mut damaged = Vec::new();
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            paths.push(entry?.path());
        }
        paths.sort();
        for path in paths {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default()
                .to_owned();
            if name.ends_with(".tmp") {
                // A write that a crash cut short: it was never acknowledged.
                fs::remove_file(&path)?;
                continue;
            }
            let reason = match name.strip_suffix(".json") {
                None if name.ends_with(".damaged") => "set aside earlier".to_owned(),
                None => continue,
                Some(_) => match read(&path) {
                    Ok(record) => {
                        records.push(record);
                        continue;
                    }
                    Err(reason) => reason,
                },
            };
            let stem = name
                .trim_end_matches(".damaged")
                .trim_end_matches(".json")
                .to_owned();
            let aside = self.directory.join(format!("{stem}.json.damaged"));
            if aside != path {
                fs::rename(&path, &aside)?;
            }
            damaged.push(DamagedRecord {
                path: aside,
                reason,
                named: name_parts(&stem),
                stem,
            });
        }
        Ok((records, damaged))
    }
}

fn read(path: &Path) -> Result<Record, String> {
    let content = fs::read(path).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&content).map_err(|error| error.to_string())?;
    if record.version == Record::VERSION {
        Ok(record)
    } else {
        Err(format!(
            "it has version {}, this agent knows version {}",
            record.version,
            Record::VERSION
        ))
    }
}

fn name_parts(stem: &str) -> Option<(u16, AttachmentKey)> {
    let (endpoint, key) = stem.split_once('-')?;
    let (container_id, interface) = key.split_once('@')?;
    // A shortened name does not tell the container any more.
    if container_id.contains('~') {
        return None;
    }
    Some((
        endpoint.parse().ok()?,
        AttachmentKey {
            container_id: container_id.to_owned(),
            interface: interface.to_owned(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            version: Record::VERSION,
            key: AttachmentKey {
                container_id: "c-1".into(),
                interface: "eth0".into(),
            },
            phase: Phase::Attached,
            endpoint: 7,
            netns: "/run/netns/x".into(),
            pod: NamespacedName::new("shop", "web"),
            pod_uid: None,
            ipv4: Some(Ipv4Addr::new(10, 244, 0, 5)),
            ipv6: None,
            generation: 1,
            identity: 300,
            labels: Vec::new(),
            link: None,
            attachment: None,
        }
    }

    #[test]
    fn a_record_comes_back_and_goes() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path()).unwrap();
        records.write(&record()).unwrap();
        assert_eq!(records.load().unwrap(), (vec![record()], vec![]));
        records.remove(7, &record().key).unwrap();
        records.remove(7, &record().key).unwrap();
        assert_eq!(records.load().unwrap(), (vec![], vec![]));
    }

    #[test]
    fn a_damaged_record_is_set_aside_and_still_tells_whose_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path()).unwrap();
        records.write(&record()).unwrap();
        let path = records.path(7, &record().key);
        fs::write(&path, b"{\"version\":1,").unwrap();
        for _ in 0..2 {
            let (good, damaged) = records.load().unwrap();
            assert!(good.is_empty());
            assert_eq!(damaged[0].named, Some((7, record().key)));
            assert!(damaged[0].path.exists());
        }
        assert!(!path.exists());
    }
}
