//! What a lab has beside its agents' answers: objects, status, events, logs, and the maps of nodes whose agent does not
//! run.

use super::draft::Draft;
use crate::dump::{
    DumpedNode, LAB_EVENTS, LAB_RECORD, LAB_STATUS, MAX_FILE_BYTES, maps_file, objects_file,
};
use heddle_agent::PolicyState;
use heddle_datapath::Pinned;
use heddle_kube::store::{Kind, Scope, Store, embedded::Client};
use heddle_lab::{config, events, mirror::Mirror, paths::Lab, status};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the store may take to tell all it has.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Processes of a lab beside its agents, by the names of their logs.
const PROCESSES: [&str; 3] = ["store", "operator", "daemon"];

/// Adds a lab's objects and status; the objects' revision.
pub(super) fn add(lab: &Lab, until: Instant, draft: &mut Draft) -> Option<u64> {
    match config::record(lab) {
        Ok(record) => {
            let mut value = json!(record);
            draft.stripper.settings(&mut value);
            draft.add_json(LAB_RECORD, &value);
        }
        Err(error) => draft.lacks(LAB_RECORD, error.to_string()),
    }
    let mut events = json!(events::read(lab));
    draft.stripper.texts(&mut events);
    draft.add_json(LAB_EVENTS, &events);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            draft.lacks("objects", format!("the runtime cannot start: {error}"));
            return None;
        }
    };
    // A store that does not answer must leave the agents their time.
    let now = Instant::now();
    let most = STORE_TIMEOUT.min(until.saturating_duration_since(now) / 3);
    let until = tokio::time::Instant::from_std(now + most);
    let store = Client::new(lab.store_socket());
    let snapshot =
        runtime.block_on(async { tokio::time::timeout_at(until, snapshot(&store)).await });
    let revision = match snapshot {
        Ok(Some((revision, mirror))) => {
            add_objects(mirror, draft);
            Some(revision)
        }
        other => {
            let why = match other {
                Ok(_) => "ended its list",
                Err(_) => "did not tell what it has in time (a third of --timeout, 10 s at most)",
            };
            let reason = format!("the store of lab {} {why}", lab.name());
            for kind in Kind::ALL {
                draft.lacks(objects_file(kind), &reason);
            }
            None
        }
    };
    let look = async { tokio::time::timeout_at(until, status::look(lab, &store)).await };
    match runtime.block_on(look) {
        Ok(Ok(report)) => draft.add_json(LAB_STATUS, &json!(report)),
        Ok(Err(error)) => draft.lacks(LAB_STATUS, error.to_string()),
        Err(_) => draft.lacks(
            LAB_STATUS,
            "it was not known in time (a third of --timeout, 10 s at most)",
        ),
    }
    // A call that nobody waits for any more ends by its own deadline.
    runtime.shutdown_background();
    revision
}

/// Everything that the store has, at one revision.
async fn snapshot(store: &dyn Store) -> Option<(u64, Mirror)> {
    let mut watch = store.watch(&Scope::each(&Kind::ALL));
    let mut mirror = Mirror::default();
    while let Some(event) = watch.recv().await {
        let revision = match &event {
            heddle_kube::store::Event::Synced { revision } => *revision,
            _ => 0,
        };
        mirror.note(event);
        if mirror.synced {
            return Some((revision, mirror));
        }
    }
    None
}

fn add_objects(mirror: Mirror, draft: &mut Draft) {
    let mut lists: Vec<Vec<Value>> = vec![Vec::new(); Kind::ALL.len()];
    for object in mirror.objects.into_values() {
        let mut value = object.value;
        draft.stripper.object(&mut value);
        let at = Kind::ALL.iter().position(|kind| *kind == object.kind);
        lists[at.unwrap_or_default()].push(value);
    }
    for (kind, items) in Kind::ALL.into_iter().zip(lists) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        draft.add_json(objects_file(kind), &list);
    }
}

/// Adds what the pinned maps say of nodes that were not heard.
pub(super) fn add_maps(lab: &Lab, nodes: &[DumpedNode], draft: &mut Draft) {
    let Ok(record) = config::record(lab) else {
        return;
    };
    for node in nodes.iter().filter(|node| !node.heard) {
        let name = node.name.as_deref().unwrap_or_default();
        let read = record.agent_config(lab, name).and_then(|config| {
            let maps = Pinned::open(&config.pin_dir).map_err(|error| error.to_string())?;
            PolicyState::of_maps(&maps).map_err(|error| error.to_string())
        });
        match read {
            Ok(state) => draft.add_json(maps_file(&node.folder), &json!(state)),
            Err(reason) => draft.lacks(maps_file(&node.folder), reason),
        }
    }
}

/// Adds the ends of the logs of a lab's processes and of its agents.
pub(super) fn add_logs(lab: &Lab, nodes: &[DumpedNode], most: u64, draft: &mut Draft) {
    for process in PROCESSES {
        add_log(
            &lab.log(process),
            &format!("lab/{process}.log"),
            most,
            draft,
        );
    }
    for node in nodes {
        let name = node.name.as_deref().unwrap_or_default();
        let file = format!("{}/agent.log", node.folder);
        add_log(&lab.log(name), &file, most, draft);
    }
}

fn add_log(path: &Path, file: &str, most: u64, draft: &mut Draft) {
    match end_of(path, most.min(MAX_FILE_BYTES)) {
        Ok((text, left_out)) => {
            if left_out > 0 {
                let what = format!(
                    "only the last {} bytes of {}",
                    text.len(),
                    left_out + text.len() as u64
                );
                draft.only_the_end(file, "--log-size", what);
            }
            let text = draft.stripper.text(&text);
            draft.add(file, text.into_bytes());
        }
        Err(error) => draft.lacks(file, format!("{} cannot be read: {error}", path.display())),
    }
}

/// The whole lines among the last bytes of a file, and how many bytes come before.
fn end_of(path: &Path, most: u64) -> std::io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut before = file.metadata()?.len().saturating_sub(most);
    file.seek(SeekFrom::Start(before))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    if before > 0 {
        // The first of them has lost its beginning.
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = end.map_or(bytes.len(), |end| end + 1);
        bytes.drain(..part);
        before += part as u64;
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_has_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "first\nsecond\nthird\n").unwrap();
        for (most, text, before) in [
            (100, "first\nsecond\nthird\n", 0),
            (19, "first\nsecond\nthird\n", 0),
            (10, "third\n", 13),
            (6, "", 19),
            (0, "", 19),
        ] {
            assert_eq!(
                end_of(&path, most).unwrap(),
                (text.to_owned(), before),
                "{most}"
            );
        }
        assert!(end_of(&folder.path().join("absent"), 9).is_err());
    }
}
