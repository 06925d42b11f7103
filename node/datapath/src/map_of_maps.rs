//! The map of policy maps, made without type information: aya has none such.
//!
//! A map of maps takes only maps that are like the one it was made with, and up to Linux 6.1 that includes whether
//! there is type information (BTF) for their values. The loader gives it to the map that it makes a map of maps with;
//! the policy maps that are made later have none. So whoever loads the programs makes this map before, and the
//! loader finds it.

use crate::{
    DatapathError,
    maps::{PolicyMap, refused},
};
use aya::maps::{ArrayOfMaps, IterableMap as _, Map, MapData, MapError};
use aya::sys::SyscallError;
use heddle_abi::{MAX_POLICY_SLOTS, POLICY_SLOT_NONE, map_names};
use nix::libc;
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

/// `BPF_MAP_CREATE` of bpf(2), and `BPF_MAP_TYPE_ARRAY_OF_MAPS` (linux/bpf.h).
const CREATE: libc::c_int = 0;
const ARRAY_OF_MAPS: u32 = 12;

/// The part of `union bpf_attr` that makes a map.
#[repr(C)]
struct Attribute {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// Makes the map of policy maps where there is none, and pins it. `inner` is like those that it shall hold.
pub(crate) fn make_if_missing(pin: &Path, inner: &PolicyMap) -> Result<(), DatapathError> {
    if std::fs::exists(pin).unwrap_or(false) {
        if takes(pin, inner)? {
            return Ok(());
        }
        // Pinned by a build that let the loader make it: as it takes no policy map, none is in it.
        tracing::warn!(pin = %pin.display(), "the map of policy maps takes none, and is made anew");
        std::fs::remove_file(pin).map_err(|error| DatapathError::Failed {
            doing: "remove",
            object: pin.display().to_string(),
            reason: error.to_string(),
        })?;
    }
    let failed = |io_error| {
        let call = "BPF_MAP_CREATE";
        let error = MapError::SyscallError(SyscallError { call, io_error });
        refused("make", map_names::POLICIES)(error)
    };
    let made = create(inner.map()).map_err(failed)?;
    let made = MapData::from_fd(made).map_err(refused("make", map_names::POLICIES))?;
    made.pin(pin).map_err(|error| DatapathError::Failed {
        doing: "pin",
        object: pin.display().to_string(),
        reason: crate::object::chain(&error),
    })
}

/// Whether the pinned map takes maps like this one. Tried with a slot that is nobody's.
fn takes(pin: &Path, inner: &PolicyMap) -> Result<bool, DatapathError> {
    let read = refused("read the pinned map", pin.display().to_string());
    let pinned = MapData::from_pin(pin).map_err(read)?;
    let read = refused("use the pinned map", pin.display().to_string());
    let mut pinned: ArrayOfMaps<MapData, PolicyMap> =
        Map::ArrayOfMaps(pinned).try_into().map_err(read)?;
    match pinned.set(POLICY_SLOT_NONE, inner, 0) {
        Ok(()) => Ok(true),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
        {
            Ok(false)
        }
        Err(error) => Err(refused("write the pinned map", pin.display().to_string())(
            error,
        )),
    }
}

#[allow(unsafe_code)]
fn create(inner: &MapData) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(map_names::POLICIES.bytes().take(15)) {
        *to = from;
    }
    let attribute = Attribute {
        kind: ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: MAX_POLICY_SLOTS,
        flags: 0,
        // A descriptor is never negative.
        inner: inner.fd().as_fd().as_raw_fd().unsigned_abs(),
        numa_node: 0,
        name,
    };
    // SAFETY: the kernel reads as many bytes as the attribute has.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            CREATE,
            std::ptr::from_ref(&attribute),
            size_of::<Attribute>(),
        )
    };
    let descriptor = libc::c_int::try_from(result).unwrap_or(-1);
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it for this call.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
