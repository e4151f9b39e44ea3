//! The fuzz targets: each takes any bytes and panics if a promise is broken.
//!
//! Called by the binaries of this workspace, which run them by [`driver`] on the stable toolchain, by libFuzzer with the
//! feature `libfuzzer`, and by `cargo test` over the kept corpus and some thousands of seeded inputs. Nothing here is part
//! of the product.

pub mod driver;
pub mod targets;
