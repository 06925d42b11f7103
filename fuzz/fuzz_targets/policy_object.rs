//! A policy object from JSON bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(object) = serde_json::from_slice(bytes) {
        heddle_fuzz::look_at(&object);
    }
});
