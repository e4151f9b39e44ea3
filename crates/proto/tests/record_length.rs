//! The handshake's records are what links carry.

#[test]
fn links_carry_exactly_the_records_of_the_handshake() {
    assert_eq!(sinew_wire::hello::RECORD_LEN, sinew_transport::RECORD_LEN);
}
