//! Which operator this is, over restarts: the name under which it stands for election.

use anyhow::Context;
use heddle_kube::process_lock::ProcessLock;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// File in the state directory with the name.
const FILE: &str = "identity";

/// This operator's place. While it lives no other process has its name, so that the next one under the same name
/// may take over from it at once.
#[derive(Debug)]
pub(crate) struct Instance {
    identity: String,
    _lock: ProcessLock,
}

impl Instance {
    /// Takes the state directory; makes it, and a name, when there is none.
    ///
    /// # Errors
    ///
    /// Another process has the directory, or it cannot be written.
    pub(crate) fn take(directory: &Path) -> anyhow::Result<Self> {
        let failed = || format!("stateDir: cannot use {}", directory.display());
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(failed)?;
        let lock = ProcessLock::take(&directory.join("operator.lock")).with_context(failed)?;
        let path = directory.join(FILE);
        let known = fs::read_to_string(&path).unwrap_or_default();
        let known = known.trim();
        let identity = if is_name(known) {
            known.to_owned()
        } else {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes)
                .map_err(|error| anyhow::anyhow!("the kernel gives no random bytes: {error}"))?;
            let name = format!("{:032x}", u128::from_be_bytes(bytes));
            let fresh = directory.join(format!("{FILE}.new"));
            fs::write(&fresh, &name).with_context(failed)?;
            fs::rename(&fresh, &path).with_context(failed)?;
            name
        };
        Ok(Self {
            identity,
            _lock: lock,
        })
    }

    /// The name.
    pub(crate) fn identity(&self) -> &str {
        &self.identity
    }
}

fn is_name(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_its_name_and_is_there_once() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("operator");
        let first = Instance::take(&path).unwrap();
        let name = first.identity().to_owned();
        let second = Instance::take(&path).unwrap_err();
        assert!(
            format!("{second:#}").contains("another process"),
            "{second:#}"
        );
        drop(first);
        assert_eq!(Instance::take(&path).unwrap().identity(), name);
        fs::write(path.join(FILE), "").unwrap();
        assert_ne!(Instance::take(&path).unwrap().identity(), name);
    }
}
