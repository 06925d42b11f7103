//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Longest file name (Linux: 255), with room for endings.
const NAME_LIMIT: usize = 200;

/// A file name for two names, such as a container's id and its interface; unlike for unlike ones.
///
/// `@` must not stand in the first, so that the first one parts the two.
pub fn file_stem(first: &str, second: &str) -> String {
    let plain = format!("{first}@{second}");
    if plain.len() <= NAME_LIMIT {
        return plain;
    }
    // FNV-1a: the name only has to be the same each time and differ in practice; the file's content
    // says what it is about.
    let hash = plain.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let head: String = first.chars().take(NAME_LIMIT - 40).collect();
    format!("{head}~{hash:016x}@{second}")
}

/// Writes a file so that after a crash, the machine's included, it is there whole or not at all.
///
/// # Errors
/// The file system's; the former content is kept then.
pub fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, File::sync_all)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Writes a file so that whenever this process ends, it is there whole or not at all. A power failure may
/// lose it or leave it damaged: for what is worth no more then than the pods that ended with it.
///
/// # Errors
/// The file system's; the former content is kept then.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    put(path, content, |_| Ok(()))
}

fn put(path: &Path, content: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        sync(&file)?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Makes a directory that only root may enter.
///
/// # Errors
/// The file system's.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fit() {
        let long = "a".repeat(300);
        let other = format!("{}b", "a".repeat(299));
        assert_eq!(file_stem("abc", "eth0"), "abc@eth0");
        assert!(file_stem(&long, "eth0").len() < 250);
        assert_ne!(file_stem(&long, "eth0"), file_stem(&other, "eth0"));
    }

    #[test]
    fn a_file_is_replaced_whole_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for content in ["one", "another"] {
            write_durably(&path, content.as_bytes()).unwrap();
            replace_file(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(replace_file(&folder.path().join("no/folder"), b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
