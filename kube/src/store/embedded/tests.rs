//! The embedded store: the suite, and everything that can happen to its file, process and socket.

use super::disk::Disk;
use super::server::serve_disk;
use super::*;
use crate::store::conformance::{
    self, DEADLINE, in_shop, next, node, pod, until_said, until_synced,
};
use crate::store::hub::Hub;
use crate::store::{Event, Kind, Scope, Store, StoreError};
use redb::{Builder, StorageBackend};
use serde_json::json;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A store in a directory of its own.
struct Running {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), StoreError>>,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let (stop, stopped) = watch::channel(false);
        let dir = dir.to_owned();
        let task = tokio::spawn(async move { serve(&dir, &dir.join("sock"), stopped).await });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }
}

/// A client that waits until its store answers.
async fn client(dir: &Path) -> Client {
    let client = Client::new(dir.join("sock"));
    wait(async || client.list(&Scope::all(Kind::Namespace)).await.is_ok()).await;
    client
}

/// Waits until a condition holds.
async fn wait(condition: impl AsyncFn() -> bool) {
    let hold = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, hold).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    conformance::run(Arc::new(client(dir.path()).await)).await;
    let mode = fs::metadata(dir.path().join("sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop().await;
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["store.lock", FILE_NAME]);
}

#[tokio::test]
async fn a_lost_store_is_said_and_found_again() {
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    let client = client(dir.path()).await;
    let first = client.create(Kind::Pod, pod("a", "1")).await.unwrap();
    let second = client.create(Kind::Pod, pod("b", "1")).await.unwrap();
    let mut watch = client.watch(&[Scope::all(Kind::Pod)]);
    until_synced(&mut watch).await;
    running.stop().await;

    let lost = client.get(Kind::Pod, &in_shop("a")).await.unwrap_err();
    let text = lost.to_string();
    assert!(lost.is_retryable() && matches!(lost, StoreError::Unavailable { .. }));
    assert!(
        text.contains("sock") && text.contains("heddle store"),
        "{text}"
    );

    // While this client is away, one object goes and one comes.
    let running = Running::start(dir.path());
    wait(async || client.delete(Kind::Pod, &in_shop("a"), None).await.is_ok()).await;
    let third = client.create(Kind::Pod, pod("c", "1")).await.unwrap();

    assert_eq!(next(&mut watch).await, Event::Restarted);
    let mut events = until_said(&mut watch, &third).await;
    events.extend(until_synced(&mut watch).await);
    assert!(events.contains(&Event::Applied(second)), "{events:?}");
    assert!(events.contains(&Event::Applied(third)), "{events:?}");
    // Either the list no longer has the first one, or its deletion followed.
    let said = events
        .iter()
        .position(|event| *event == Event::Applied(first.clone()));
    let gone = events
        .iter()
        .any(|event| matches!(event, Event::Deleted(_)));
    assert_eq!(said.is_some(), gone, "{events:?}");
    running.stop().await;
}

#[tokio::test]
async fn two_stores_of_one_directory_are_refused() {
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    client(dir.path()).await;
    let (_stop, stopped) = watch::channel(false);
    let refused = serve(dir.path(), &dir.path().join("other"), stopped.clone()).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("another store process"), "{text}");
    // Nor may one take another's socket.
    let elsewhere = TempDir::new().unwrap();
    let refused = serve(elsewhere.path(), &dir.path().join("sock"), stopped).await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("another store answers")
    );
    client(dir.path()).await;
    running.stop().await;
}

#[tokio::test]
async fn nonsense_on_the_socket_is_answered_and_harms_nobody() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    let client = client(dir.path()).await;
    let too_long = vec![b'x'; wire::MAX_LINE_BYTES + 1];
    let lines: [&[u8]; 4] = [
        b"nonsense\n",
        b"{\"list\":{\"kind\":\"Secret\"}}\n",
        b"\xff\xfe\n",
        &too_long,
    ];
    for line in lines {
        let mut stream = tokio::net::UnixStream::connect(dir.path().join("sock"))
            .await
            .unwrap();
        // The store may close before it has read everything of a line that is too long.
        let _ = stream.write_all(line).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.contains("cannot be read") || line.len() > 1_000,
            "{answer}"
        );
        client.list(&Scope::all(Kind::Pod)).await.unwrap();
    }
    running.stop().await;
}

/// A file on a disk that can be full.
#[derive(Debug)]
struct FullableFile {
    file: File,
    full: Arc<AtomicBool>,
}

impl FullableFile {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for FullableFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.file.write_all_at(data, offset)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_loses_nothing_and_recovers() {
    let dir = TempDir::new().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&full);
    let open = Box::new(move |path: &Path| {
        let file = File::options().read(true).write(true).open(path)?;
        Builder::new().create_with_backend(FullableFile {
            file,
            full: Arc::clone(&switch),
        })
    });
    let (disk, tables) = Disk::open_with(dir.path(), open).unwrap();
    let (stop, stopped) = watch::channel(false);
    let socket = dir.path().join("sock");
    let task = tokio::spawn(async move {
        serve_disk(disk, Arc::new(Hub::new(tables)), &socket, stopped).await
    });
    let store = client(dir.path()).await;
    let kept = store.create(Kind::Pod, pod("kept", "1")).await.unwrap();
    let mut watch = store.watch(&[Scope::all(Kind::Pod)]);
    until_synced(&mut watch).await;

    full.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let refused = store.create(Kind::Pod, pod("new", "1")).await.unwrap_err();
        assert!(matches!(refused, StoreError::NotSaved { .. }), "{refused}");
        assert!(refused.is_retryable());
        let refused = store
            .delete(Kind::Pod, &in_shop("kept"), None)
            .await
            .unwrap_err();
        assert!(matches!(refused, StoreError::NotSaved { .. }), "{refused}");
    }
    // Reading goes on, and shows what was acknowledged.
    assert_eq!(
        store.list(&Scope::all(Kind::Pod)).await.unwrap(),
        std::slice::from_ref(&kept)
    );

    full.store(false, Ordering::SeqCst);
    let after = store.create(Kind::Pod, pod("after", "1")).await.unwrap();
    let events = until_said(&mut watch, &after).await;
    assert_eq!(
        events,
        [Event::Applied(after.clone())],
        "nothing refused was shown"
    );
    stop.send_replace(true);
    task.await.unwrap().unwrap();

    let running = Running::start(dir.path());
    let store = client(dir.path()).await;
    assert_eq!(
        store.list(&Scope::all(Kind::Pod)).await.unwrap(),
        [after, kept]
    );
    running.stop().await;
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    let store = client(dir.path()).await;
    for number in 0..40 {
        let image = "x".repeat(600);
        store
            .create(Kind::Pod, pod(&format!("p{number}"), &image))
            .await
            .unwrap();
    }
    running.stop().await;
    let path = dir.path().join(FILE_NAME);
    let good = fs::read(&path).unwrap();
    let middle_of_a_row = good
        .windows(200)
        .position(|window| window.iter().all(|byte| *byte == b'x'))
        .unwrap();
    let flip = |at: usize| {
        let mut damaged = good.clone();
        damaged[at] ^= 0xff;
        damaged
    };
    for (what, damaged) in [
        ("a byte of an object", flip(middle_of_a_row)),
        ("the magic number", flip(0)),
        ("half of the file", good[..good.len() / 2].to_vec()),
        ("everything", Vec::new()),
        ("another file", b"apiVersion: v1\nkind: Pod\n".repeat(500)),
    ] {
        fs::write(&path, &damaged).unwrap();
        let (_stop, stopped) = watch::channel(false);
        let refused = serve(dir.path(), &dir.path().join("sock"), stopped).await;
        let Err(StoreError::Corrupt { path: named, .. }) = &refused else {
            panic!("{what}: {refused:?}")
        };
        assert_eq!(Path::new(named), path);
        assert_eq!(
            fs::read(&path).unwrap(),
            damaged,
            "{what}: the file was changed"
        );
        assert!(!dir.path().join("sock").exists());
    }
    fs::write(&path, &good).unwrap();
    let running = Running::start(dir.path());
    let store = client(dir.path()).await;
    assert_eq!(store.list(&Scope::all(Kind::Pod)).await.unwrap().len(), 40);
    running.stop().await;
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_found_or_harmless() {
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    let store = client(dir.path()).await;
    for number in 0..40 {
        let name = format!("p{number}");
        store
            .create(Kind::Pod, pod(&name, &"x".repeat(600)))
            .await
            .unwrap();
    }
    let wanted = store.list(&Scope::all(Kind::Pod)).await.unwrap();
    running.stop().await;
    let path = dir.path().join(FILE_NAME);
    let good = fs::read(&path).unwrap();
    let mut refused = 0;
    // Closely over the header, then a spread over the rest (a step that is no divisor of a page).
    for at in (0..512).step_by(3).chain((512..good.len()).step_by(4_093)) {
        let mut damaged = good.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        match Disk::open(dir.path()) {
            Err(StoreError::Corrupt { .. }) => {
                refused += 1;
                assert_eq!(
                    fs::read(&path).unwrap(),
                    damaged,
                    "byte {at}: the file was changed"
                );
            }
            Err(error) => panic!("byte {at}: {error}"),
            Ok((disk, tables)) => {
                drop(disk);
                let kept = Hub::new(tables).list(&Scope::all(Kind::Pod));
                assert!(kept.iter().map(|object| &**object).eq(&wanted), "byte {at}");
            }
        }
    }
    assert!(refused > 20, "{refused} refused");
}

/// Environment variables that turn [`child_process`] into a store process.
const SERVE_DIR: &str = "HEDDLE_TEST_SERVE_DIR";
const SERVE_SOCKET: &str = "HEDDLE_TEST_SERVE_SOCKET";
/// Arguments of this test program that run only [`child_process`].
const CHILD: [&str; 2] = ["--exact", "store::embedded::tests::child_process"];

/// A store process for the tests below, which end it; nothing by itself.
#[tokio::test]
async fn child_process() {
    let (Some(dir), Some(socket)) = (std::env::var_os(SERVE_DIR), std::env::var_os(SERVE_SOCKET))
    else {
        return;
    };
    let (_stop, stopped) = watch::channel(false);
    serve(Path::new(&dir), Path::new(&socket), stopped)
        .await
        .unwrap();
}

/// A child that is killed when the test ends, well or not.
struct Child(std::process::Child);

impl Child {
    fn start(mut command: std::process::Command, dir: &Path, socket: &Path) -> Self {
        let child = command
            .env(SERVE_DIR, dir)
            .env(SERVE_SOCKET, socket)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Needs root (a mount namespace with a small tmpfs). Loud when skipped, and never skipped in CI.
#[tokio::test]
async fn a_full_file_system_refuses_writes_loses_nothing_and_recovers() {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        assert!(std::env::var_os("CI").is_none(), "CI runs this as root");
        eprintln!("SKIPPED: a full file system needs root to mount one");
        return;
    }
    let dir = TempDir::new().unwrap();
    let mount = dir.path().join("mount");
    fs::create_dir(&mount).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=4m tmpfs {0} && head -c 1m /dev/zero > {0}/ballast && exec \"$@\"",
        mount.display()
    );
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "--", "sh", "-c", &script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(CHILD);
    let child = Child::start(command, &mount.join("state"), &dir.path().join("sock"));
    let store = client(dir.path()).await;
    let mut acknowledged = Vec::new();
    let image = "x".repeat(100_000);
    let refused = loop {
        let name = format!("p{:03}", acknowledged.len());
        match store.create(Kind::Pod, pod(&name, &image)).await {
            Ok(object) => acknowledged.push(object),
            Err(error) => break error,
        }
        assert!(
            acknowledged.len() < 100,
            "4 MiB hold no 100 objects of 100 kB"
        );
    };
    assert!(matches!(refused, StoreError::NotSaved { .. }), "{refused}");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert_eq!(
        store.list(&Scope::all(Kind::Pod)).await.unwrap(),
        acknowledged
    );
    // Room again: the child's file system is seen through its root.
    let ballast = format!("/proc/{}/root{}/ballast", child.0.id(), mount.display());
    fs::remove_file(ballast).unwrap();
    let name = format!("p{:03}", acknowledged.len());
    acknowledged.push(store.create(Kind::Pod, pod(&name, "small")).await.unwrap());
    assert_eq!(
        store.list(&Scope::all(Kind::Pod)).await.unwrap(),
        acknowledged
    );
    // What is in the file is what was acknowledged, too.
    let copy = TempDir::new().unwrap();
    let file = format!(
        "/proc/{}/root{}/state/{FILE_NAME}",
        child.0.id(),
        mount.display()
    );
    fs::copy(file, copy.path().join(FILE_NAME)).unwrap();
    drop(child);
    let (disk, tables) = Disk::open(copy.path()).unwrap();
    drop(disk);
    let hub = Arc::new(Hub::new(tables));
    let kept: Vec<_> = hub
        .list(&Scope::all(Kind::Pod))
        .iter()
        .map(|object| (**object).clone())
        .collect();
    assert_eq!(kept, acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_writes_nothing_acknowledged_is_lost() {
    let dir = TempDir::new().unwrap();
    let mut acknowledged = std::collections::BTreeSet::new();
    let mut deleted = std::collections::BTreeSet::new();
    for round in 0..5 {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(CHILD);
        let child = Child::start(command, dir.path(), &dir.path().join("sock"));
        let store = client(dir.path()).await;
        let present: std::collections::BTreeSet<_> = store
            .list(&Scope::all(Kind::Node))
            .await
            .unwrap()
            .into_iter()
            .map(|object| object.name.name)
            .collect();
        let lost: Vec<_> = acknowledged.difference(&present).collect();
        assert!(lost.is_empty(), "round {round}: lost {lost:?}");
        let back: Vec<_> = deleted.intersection(&present).collect();
        assert!(back.is_empty(), "round {round}: came back {back:?}");
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let store = store.clone();
            writers.spawn(async move {
                let (mut made, mut gone) = (Vec::new(), Vec::new());
                for number in 0.. {
                    let name = format!("n-{round}-{writer}-{number}");
                    if store.create(Kind::Node, node(&name)).await.is_err() {
                        break;
                    }
                    if number % 3 != 0 {
                        made.push(name);
                        continue;
                    }
                    let name = heddle_model::NamespacedName::new("", name);
                    if store.delete(Kind::Node, &name, None).await.is_err() {
                        break;
                    }
                    gone.push(name.name);
                }
                (made, gone)
            });
        }
        let enough = 40 * (round + 1);
        wait(async || {
            store
                .list(&Scope::all(Kind::Node))
                .await
                .is_ok_and(|nodes| nodes.len() >= enough)
        })
        .await;
        drop(child);
        for (made, gone) in writers.join_all().await {
            acknowledged.extend(made);
            deleted.extend(gone);
        }
    }
    assert!(acknowledged.len() >= 150, "{} writes", acknowledged.len());
}

#[tokio::test]
async fn data_survives_a_restart_with_its_revisions() {
    let dir = TempDir::new().unwrap();
    let running = Running::start(dir.path());
    let store = client(dir.path()).await;
    let created = store.create(Kind::Pod, pod("a", "1")).await.unwrap();
    let status = json!({"phase": "Running"});
    let patched = store
        .apply_status(Kind::Pod, &created.name, "a", status.clone())
        .await
        .unwrap();
    store.create(Kind::Node, node("gone")).await.unwrap();
    let name = heddle_model::NamespacedName::new("", "gone");
    store.delete(Kind::Node, &name, None).await.unwrap();
    running.stop().await;

    let running = Running::start(dir.path());
    let store = client(dir.path()).await;
    assert_eq!(store.get(Kind::Pod, &created.name).await.unwrap(), patched);
    // Who owns what survives, too: the other manager's silence changes nothing, the first one's does.
    let name = &created.name;
    let other = store.apply_status(Kind::Pod, name, "b", json!({})).await;
    assert_eq!(other.unwrap().value["status"], status);
    let own = store.apply_status(Kind::Pod, name, "a", json!({})).await;
    let own = own.unwrap();
    assert_eq!(own.value["status"], json!({}));
    let next = store.create(Kind::Node, node("next")).await.unwrap();
    let position = |version| store.position(version).unwrap();
    assert!(
        position(&own.version) >= position(&patched.version) + 3,
        "a deletion's revision is not used again"
    );
    assert_eq!(position(&next.version), position(&own.version) + 1);
    running.stop().await;
}
