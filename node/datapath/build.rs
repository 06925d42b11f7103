//! Compiles the eBPF programs: the one place that decides which compiler builds them.
//!
//! `HEDDLE_BPF_CARGO` names another cargo. By default it is the distribution's (`/usr/bin/cargo`), whose
//! compiler ships a prebuilt `core` for `bpfel-unknown-none`; where there is none, the cargo that runs
//! this build with a nightly toolchain (`HEDDLE_BPF_TOOLCHAIN`) and `-Z build-std=core`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const TARGET: &str = "bpfel-unknown-none";
const DISTRIBUTION_CARGO: &str = "/usr/bin/cargo";
const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";
const DISTRIBUTION_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none";

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("../..");
    let out = PathBuf::from(variable("OUT_DIR"));
    for watched in [
        "bpf/abi/src",
        "bpf/abi/Cargo.toml",
        "bpf/programs/src",
        "bpf/programs/Cargo.toml",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    for watched in ["HEDDLE_BPF_CARGO", "HEDDLE_BPF_TOOLCHAIN", "HEDDLE_CACHE"] {
        println!("cargo::rerun-if-env-changed={watched}");
    }
    let target = out.join("target");
    let mut build = compiler();
    build
        .current_dir(&root)
        .args([
            "build",
            "--package",
            "heddle-bpf",
            "--release",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("PATH", path_with_linker())
        // aya-ebpf uses one unstable feature.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            "-Cdebuginfo=2\u{1f}-Clink-arg=--btf",
        )
        .env("CARGO_PROFILE_RELEASE_LTO", "true")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false");
    for (variable, feature) in [
        ("CARGO_FEATURE_NEXT_ABI", "heddle-bpf/next-abi"),
        ("CARGO_FEATURE_FORMER_ABI", "heddle-bpf/former-abi"),
    ] {
        if env::var_os(variable).is_some() {
            build.args(["--features", feature]);
        }
    }
    // What cargo sets for this script would leak the host build's choices into the other one.
    for leaked in [
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTFLAGS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
    ] {
        build.env_remove(leaked);
    }
    match build.status() {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!(
            "the eBPF programs did not build ({status}); see above"
        )),
        Err(error) => fail(&format!("cannot run {:?}: {error}", build.get_program())),
    }
    let object = target.join(TARGET).join("release/heddle");
    if let Err(error) = fs::copy(&object, out.join("heddle.bpf.o")) {
        fail(&format!("cannot read {}: {error}", object.display()));
    }
}

/// The cargo that builds for the kernel.
fn compiler() -> Command {
    if let Ok(cargo) = env::var("HEDDLE_BPF_CARGO") {
        return Command::new(cargo);
    }
    if Path::new(DISTRIBUTION_CORE).exists() {
        let mut cargo = Command::new(DISTRIBUTION_CARGO);
        cargo
            .env("RUSTC", DISTRIBUTION_RUSTC)
            .env_remove("RUSTUP_TOOLCHAIN");
        // bpf-linker loads this compiler's LLVM at run time.
        let library = format!("/usr/lib/{}-linux-gnu", env::consts::ARCH);
        cargo.env("LD_LIBRARY_PATH", library);
        return cargo;
    }
    let toolchain = env::var("HEDDLE_BPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".to_owned());
    let mut cargo = Command::new("rustup");
    cargo
        .args(["run", &toolchain, "cargo", "-Zbuild-std=core"])
        .env_remove("RUSTC")
        .env_remove("CARGO");
    cargo
}

/// PATH with the directory where the set-up puts bpf-linker at its head, so that the linker does not depend on who
/// calls; a changed PATH is no reason to build again.
fn path_with_linker() -> String {
    let path = env::var("PATH").unwrap_or_default();
    let home = env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let cache = env::var("HEDDLE_CACHE").unwrap_or_else(|_| {
        let base = env::var("XDG_CACHE_HOME").unwrap_or_else(|_| format!("{home}/.cache"));
        format!("{base}/heddle")
    });
    format!("{cache}/bin:{path}:{home}/.cargo/bin")
}

fn variable(name: &str) -> String {
    match env::var(name) {
        Ok(value) => value,
        Err(_) => fail(&format!("{name} is not set; build with cargo")),
    }
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    println!("cargo::error=`make setup` installs the eBPF compiler and bpf-linker");
    std::process::exit(1)
}
