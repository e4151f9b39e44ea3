//! What `wire` says for itself and what the transport seam says must be the same.

use proptest::prelude::*;

#[test]
fn links_carry_exactly_the_records_of_the_handshake() {
    assert_eq!(sinew_wire::hello::RECORD_LEN, sinew_transport::RECORD_LEN);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_locator_of_an_address_is_a_locator_of_a_transport(
        text in prop_oneof!["[a-zA-Z0-9+-]{0,17}:[ -~]{0,202}", "[ -~é]{0,40}"],
    ) {
        let here = sinew_wire::address::split_locator(&text).is_ok();
        prop_assert_eq!(here, text.parse::<sinew_transport::Locator>().is_ok());
    }
}
