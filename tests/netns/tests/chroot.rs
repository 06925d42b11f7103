//! A lab in a root directory that is not a mount point, as after a plain chroot, and in one that is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by a panic"
)]

use heddle_netns::heddle;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Brings a lab up and down in a chroot with this machine's folders, in a mount namespace of its own. `before` is done to
/// the folder first.
fn lab_in(folder: &Path, before: &str, lab: &str) -> Output {
    let script = format!(
        "{before}
         cd {0}
         for name in usr etc proc sys dev run tmp; do mkdir -p $name; mount --rbind /$name $name; done
         for name in bin sbin lib lib64; do
           if [ -L /$name ]; then ln -s $(readlink /$name) $name
           elif [ -d /$name ]; then mkdir $name; mount --rbind /$name $name; fi
         done
         cp $HEDDLE $HEDDLE_CNI .
         code=0
         chroot . /heddle lab up --lab {lab} --nodes 1 || code=$?
         chroot . /heddle lab down --lab {lab}
         exit $code",
        folder.display()
    );
    // Its mounts are private, and end with it.
    Command::new("unshare")
        .args(["--mount", "--", "bash", "-euc", &script])
        .env("HEDDLE", heddle())
        .output()
        .unwrap()
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("heddle-chroot-{name}"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_root_that_is_no_mount_point_is_named_before_anything_is_made() {
    let name = format!("c{}", std::process::id() % 100_000);
    let folder = Folder::new(&name);
    let output = lab_in(&folder.0, "", &name);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("error[lab/root-not-mounted]"), "{said}");
    assert!(said.contains("mount --bind"), "{said}");
    assert!(!Path::new("/run/heddle/labs").join(&name).exists());
}

#[test]
fn what_the_error_advises_helps() {
    let name = format!("d{}", std::process::id() % 100_000);
    let folder = Folder::new(&name);
    let bind = format!("mount --bind {0} {0}", folder.0.display());
    let output = lab_in(&folder.0, &bind, &name);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
