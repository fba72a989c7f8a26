//! Rules by path, within one host.
