use heddle_datapath::{Datapath, KernelDatapath, Settings};
use std::process::Command;
#[test]
fn opens() {
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        for c in ["ip link add eth0 type veth peer name eth1", "ip link set eth0 up", "ip link set eth1 up", "ip addr add 172.31.1.2/24 dev eth0"] {
            assert!(Command::new("sh").arg("-c").arg(c).status().unwrap().success());
        }
        let pin = format!("/sys/fs/bpf/heddle-test-{}", std::process::id());
        let mut s = Settings::new(&pin, "eth0");
        s.overlay = true;
        let r = KernelDatapath::open(s.clone());
        match r { Ok(d) => { println!("{:?}", d.features()); drop(d); let d = KernelDatapath::open(s).map(drop); println!("{d:?}"); }, Err(e) => { let t=e.to_string(); println!("{}", &t[t.len().saturating_sub(6000)..]); let _=std::fs::remove_dir_all(&pin); panic!() } }
        let _=std::fs::remove_dir_all(&pin);
    }).join().unwrap();
}
