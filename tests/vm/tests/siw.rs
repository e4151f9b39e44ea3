//! The programs of rdma-core over iWARP, whose connections are made by rdma cm only. It has neither datagrams nor atomics.

use sinew_vm_tests::{address, rping, ucmatose};

#[test]
fn rping_reaches_itself() {
    rping(&address(), &address());
}

#[test]
fn ucmatose_reaches_itself() {
    ucmatose(&address());
}
