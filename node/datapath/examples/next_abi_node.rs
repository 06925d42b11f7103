//! The test version of the ABI on a node, for `tests/upgrade.rs`: takes the datapath over, or prepares the way
//! back. It says when that is done, and ends when its input does; or it ends at once after a step of the take-over.
//! `former_abi_node` is the same with the version before.

use heddle_datapath::{DatapathError, KernelDatapath, Settings, prepare_downgrade};
use std::{cell::Cell, io::Read as _};

/// Does what the arguments say.
///
/// # Errors
/// When they are not understood, or when the datapath refuses.
pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, pin_dir, hook, options @ ..] = arguments.as_slice() else {
        return Err(
            "usage: open|prepare PIN_DIR clsact|tcx [max-connections=N] [max-policy-entries=N] [end-after=STEP:N]"
                .into(),
        );
    };
    let mut settings = Settings::new(pin_dir, "eth0");
    settings.force_clsact = hook == "clsact";
    // A step, and how often it is still to be done.
    let mut end_after = (String::new(), 0_u32);
    for option in options {
        match option.split_once('=') {
            Some(("max-connections", number)) => settings.max_connections = number.parse()?,
            Some(("max-policy-entries", number)) => settings.max_policy_entries = number.parse()?,
            Some(("end-after", step)) => {
                let (step, times) = step.split_once(':').ok_or("STEP:N")?;
                end_after = (step.to_owned(), times.parse()?);
            }
            _ => return Err(format!("unknown option {option}").into()),
        }
    }
    match work.as_str() {
        "open" => {
            let (step, times) = end_after;
            let left = Cell::new(times);
            let _datapath = KernelDatapath::open_watched(settings, &|done| {
                if format!("{done:?}") == step {
                    left.set(left.get() - 1);
                    if left.get() == 0 {
                        println!("ended");
                        // Nothing is dropped, as by a kill.
                        std::process::exit(0);
                    }
                }
            })?;
            println!("ready");
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        _ => follow(settings)?,
    }
    Ok(())
}

fn follow(settings: Settings) -> Result<(), DatapathError> {
    let prepared = prepare_downgrade(&settings.pin_dir, heddle_abi::ABI_VERSION - 1)?;
    println!("ready");
    prepared.follow_until(|| false).map(drop)
}
