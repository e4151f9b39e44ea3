//! Campaigns of starvation: limits of the system are reached, receivers do not receive, peers stand still. Each failure is an
//! error that says what is short and what helps; nothing is lost, and nothing stays behind.
//!
//! [`limits`] are processes under `setrlimit`, [`places`] directories that take no socket, [`flood`] receivers that do not
//! receive, [`stopped`] peers that stand still and clocks that differ.

#[path = "../campaign_cut/campaign.rs"]
mod campaign;
#[path = "../common/mod.rs"]
mod common;
mod connects;
mod flood;
mod limits;
mod places;
mod stopped;

/// The other processes.
#[test]
#[ignore = "run by other tests as another process"]
fn other_process() {
    let lane = std::env::var("OTHER_LANE").unwrap();
    match std::env::var("OTHER_ROLE").unwrap().as_str() {
        "echo" => stopped::echo(&lane),
        "deaf" => flood::deaf(&lane),
        "descriptors" => limits::descriptors(&lane),
        "accepting" => limits::accepting(&lane),
        "address space" => limits::address_space(&lane),
        "file size" => limits::file_size(&lane),
        "locked memory" => limits::locked_memory(&lane),
        "threads" => limits::threads(&lane),
        "places" => places::child(&lane),
        other => panic!("no role {other}"),
    }
}
