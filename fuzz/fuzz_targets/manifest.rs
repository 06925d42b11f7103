//! Manifests from text, and every object in them as a policy.
#![no_main]

use heddle_kube::manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match manifest::parse("fuzz.yaml", text) {
        Ok(manifests) => manifests.iter().for_each(|manifest| heddle_fuzz::look_at(&manifest.value)),
        Err(error) => {
            assert!(error.code().starts_with("manifest/"));
            assert!(!error.to_string().is_empty() && !error.help().is_empty());
        }
    }
});
