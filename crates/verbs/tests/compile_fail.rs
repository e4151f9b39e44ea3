//! Programs that would be unsound, or make no sense, do not compile.

#[test]
fn programs_that_break_a_rule_of_borrowing_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
