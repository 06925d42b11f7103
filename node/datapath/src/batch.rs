//! Many entries of a map in one system call (Linux 5.6 and later, tries 5.14): aya has none of these.

use aya::{
    Pod,
    maps::{MapData, MapError},
    sys::SyscallError,
};
use nix::libc;
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// Commands of bpf(2) (linux/bpf.h).
const LOOKUP: libc::c_int = 24;
const UPDATE: libc::c_int = 26;
const DELETE: libc::c_int = 27;

/// Entries in one call: what the kernel copies at a time, and how long a thread is in it.
const CHUNK: usize = 4096;
/// Entries that a look has room for at first: twice as many where a hash has a bucket with more.
const ROOM: usize = 16_384;
/// What a look says of its end.
const END: i32 = libc::ENOENT;
/// Times that a look is tried again whose entries went under it.
const TRIES: u32 = 16;

/// The part of `union bpf_attr` that the batch commands use.
#[repr(C)]
#[derive(Default)]
struct Attribute {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Runs a command; gives how many entries it did, and how it ended.
///
/// # Safety
///
/// The addresses in the attribute are valid for as many keys and values of the map as `count` says: to be read, and
/// for [`LOOKUP`] to be written; the batch cursors for a key, or four bytes if that is more.
#[allow(unsafe_code)]
unsafe fn run(command: libc::c_int, attribute: &mut Attribute) -> (usize, io::Result<()>) {
    // SAFETY: the kernel reads and writes as many bytes as the attribute has; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attribute),
            size_of::<Attribute>(),
        )
    };
    let outcome = if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    };
    (attribute.count as usize, outcome)
}

fn descriptor(map: &MapData) -> u32 {
    // A descriptor is never negative.
    map.fd().as_fd().as_raw_fd().unsigned_abs()
}

fn length(map: &MapData, key: usize, value: usize) -> Result<(), MapError> {
    let info = map.info()?;
    if info.key_size() as usize != key {
        return Err(MapError::InvalidKeySize {
            size: key,
            expected: info.key_size() as usize,
        });
    }
    if info.value_size() as usize != value {
        return Err(MapError::InvalidValueSize {
            size: value,
            expected: info.value_size() as usize,
        });
    }
    Ok(())
}

fn failed(call: &'static str, io_error: io::Error) -> MapError {
    MapError::SyscallError(SyscallError { call, io_error })
}

/// Writes entries, in their order. An error comes with how many were written before it.
#[allow(unsafe_code)]
pub(crate) fn update<K: Pod, V: Pod>(
    map: &MapData,
    keys: &[K],
    values: &[V],
) -> Result<(), (usize, MapError)> {
    debug_assert_eq!(keys.len(), values.len());
    length(map, size_of::<K>(), size_of::<V>()).map_err(|error| (0, error))?;
    let mut written = 0;
    for (keys, values) in keys.chunks(CHUNK).zip(values.chunks(CHUNK)) {
        let mut attribute = Attribute {
            keys: keys.as_ptr() as u64,
            values: values.as_ptr() as u64,
            count: keys.len().min(values.len()) as u32,
            map: descriptor(map),
            ..Attribute::default()
        };
        // SAFETY: both slices hold `count` elements, whose sizes are the map's.
        let (count, outcome) = unsafe { run(UPDATE, &mut attribute) };
        outcome.map_err(|error| (written + count, failed("BPF_MAP_UPDATE_BATCH", error)))?;
        written += keys.len();
    }
    Ok(())
}

/// Removes entries; those that are not there are no error. An error comes with how many were done before it.
#[allow(unsafe_code)]
pub(crate) fn remove<K: Pod>(map: &MapData, keys: &[K]) -> Result<(), (usize, MapError)> {
    let info = map.info().map_err(|error| (0, error))?;
    length(map, size_of::<K>(), info.value_size() as usize).map_err(|error| (0, error))?;
    let mut done = 0;
    while done < keys.len() {
        let left = &keys[done..keys.len().min(done + CHUNK)];
        let mut attribute = Attribute {
            keys: left.as_ptr() as u64,
            count: left.len() as u32,
            map: descriptor(map),
            ..Attribute::default()
        };
        // SAFETY: the slice holds `count` keys of the map's size.
        let (count, outcome) = unsafe { run(DELETE, &mut attribute) };
        done += count.min(left.len());
        match outcome {
            Ok(()) => {}
            // It stopped at a key that is not there.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => done += 1,
            Err(error) => return Err((done, failed("BPF_MAP_DELETE_BATCH", error))),
        }
    }
    Ok(())
}

/// Calls `with` for every entry, many at a time. What is written or removed meanwhile may be seen or not.
#[allow(unsafe_code)]
pub(crate) fn read<K: Pod, V: Pod>(
    map: &MapData,
    mut with: impl FnMut(&K, &V),
) -> Result<(), MapError> {
    length(map, size_of::<K>(), size_of::<V>())?;
    let mut room = ROOM.min((map.info()?.max_entries() as usize).max(1));
    let mut keys: Vec<MaybeUninit<K>> = Vec::new();
    let mut values: Vec<MaybeUninit<V>> = Vec::new();
    // A cursor is a key (tries), or the number of a bucket (hashes).
    let mut cursor = vec![0_u8; size_of::<K>().max(size_of::<u32>())];
    let mut next = cursor.clone();
    let (mut is_first, mut tries) = (true, 0);
    loop {
        keys.resize(room, MaybeUninit::uninit());
        values.resize(room, MaybeUninit::uninit());
        let mut attribute = Attribute {
            in_batch: if is_first { 0 } else { cursor.as_ptr() as u64 },
            out_batch: next.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map: descriptor(map),
            ..Attribute::default()
        };
        // SAFETY: both vectors have room for `count` elements, whose sizes are the map's; the cursors for a key.
        let (count, outcome) = unsafe { run(LOOKUP, &mut attribute) };
        let code = outcome.as_ref().err().and_then(io::Error::raw_os_error);
        match (code, outcome) {
            (None, _) | (Some(END), _) => {}
            // A bucket with more entries than that.
            (Some(libc::ENOSPC), _) if room < 1 << 24 => {
                room *= 2;
                continue;
            }
            // A trie's entries went while they were read: those before count.
            (Some(libc::EINTR), _) if tries < TRIES => {
                tries += 1;
                if count == 0 {
                    continue;
                }
            }
            (_, Err(error)) => return Err(failed("BPF_MAP_LOOKUP_BATCH", error)),
            (_, Ok(())) => {}
        }
        for (key, value) in keys.iter().zip(&values).take(count) {
            // SAFETY: the kernel wrote the first `count` of each, and every bit pattern is a value of a `Pod`.
            unsafe { with(key.assume_init_ref(), value.assume_init_ref()) };
        }
        if code == Some(END) {
            return Ok(());
        }
        is_first = false;
        std::mem::swap(&mut cursor, &mut next);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test fails by a panic")]
mod tests {
    use super::*;
    use aya::maps::{HashMap, IterableMap as _, LpmTrie, lpm_trie::Key};
    use std::collections::BTreeSet;

    fn numbers(map: &MapData) -> BTreeSet<(u32, u64)> {
        let mut found = BTreeSet::new();
        read(map, |key: &u32, value: &u64| {
            assert!(found.insert((*key, *value)), "{key} twice");
        })
        .expect("read");
        found
    }

    /// Needs root.
    #[test]
    fn a_hash_is_written_read_and_emptied_in_more_than_one_call() {
        let map = HashMap::<MapData, u32, u64>::create(20_000, 0).expect("map");
        assert!(numbers(map.map()).is_empty());
        let keys: Vec<u32> = (0..20_000).collect();
        let values: Vec<u64> = keys.iter().map(|key| u64::from(*key) + 7).collect();
        update(map.map(), &keys, &values)
            .map_err(|(_, it)| it)
            .expect("update");
        let all: BTreeSet<_> = keys.iter().copied().zip(values).collect();
        assert_eq!(numbers(map.map()), all);
        // The map is full.
        let (written, error) = update(map.map(), &[5_u32, 20_001], &[1_u64, 1]).expect_err("full");
        assert_eq!(written, 1, "{error}");
        // Every other key is not there.
        let some: Vec<u32> = (0..40_000).map(|key| key * 2).collect();
        remove(map.map(), &some)
            .map_err(|(_, it)| it)
            .expect("remove");
        assert_eq!(numbers(map.map()).len(), 10_000);
        let (_, error) = update(map.map(), &[1_u64], &[1_u64]).expect_err("size");
        assert!(matches!(error, MapError::InvalidKeySize { .. }), "{error}");
    }

    /// Needs root.
    #[test]
    fn a_trie_is_written_read_and_emptied_in_more_than_one_call() {
        let map = LpmTrie::<MapData, u32, u32>::create(20_000, 1).expect("map");
        let keys: Vec<_> = (0..18_000_u32)
            .map(|key| Key::new(32, key.to_be()))
            .collect();
        let values: Vec<u32> = (0..18_000).collect();
        update(map.map(), &keys, &values)
            .map_err(|(_, it)| it)
            .expect("update");
        let mut found = BTreeSet::new();
        read(map.map(), |key: &Key<u32>, value: &u32| {
            assert_eq!((key.prefix_len(), u32::from_be(key.data())), (32, *value));
            assert!(found.insert(*value), "{value} twice");
        })
        .expect("read");
        assert_eq!(found.len(), keys.len());
        remove(map.map(), &keys)
            .map_err(|(_, it)| it)
            .expect("remove");
        remove(map.map(), &keys)
            .map_err(|(_, it)| it)
            .expect("again");
        read(map.map(), |_: &Key<u32>, _: &u32| unreachable!()).expect("read");
    }
}
