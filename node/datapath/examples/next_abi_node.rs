//! The test version of the ABI on a node, for `tests/upgrade.rs`: takes the datapath over, or prepares the way
//! back. It says when that is done, and ends when its input does.

use heddle_datapath::{DatapathError, KernelDatapath, Settings, prepare_downgrade};
use std::{io::Read as _, time::Duration};

/// How often what came meanwhile is brought over.
const EVERY: Duration = Duration::from_millis(20);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [work, pin_dir, options] = arguments.as_slice() else {
        return Err("usage: next_abi_node open|prepare PIN_DIR clsact|tcx".into());
    };
    let mut settings = Settings::new(pin_dir, "eth0");
    settings.force_clsact = options == "clsact";
    match work.as_str() {
        "open" => {
            let _datapath = KernelDatapath::open(settings)?;
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
    while !prepared.follow()? {
        std::thread::sleep(EVERY);
    }
    Ok(())
}
