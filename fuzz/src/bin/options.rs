//! The `options` target: by the driver, or by libFuzzer with the feature `libfuzzer`.
#![cfg_attr(feature = "libfuzzer", no_main)]

#[cfg(not(feature = "libfuzzer"))]
fn main() -> std::process::ExitCode {
    sinew_fuzz::driver::main(&sinew_fuzz::targets::OPTIONS)
}

#[cfg(feature = "libfuzzer")]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    (sinew_fuzz::targets::OPTIONS.run)(data);
});
