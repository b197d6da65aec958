//! Every kernel on every instruction set of the machine, beside its definition.

mod activation;
mod attention;
mod ceiling;
mod gemm;
mod int4;
mod int8;
mod int8_rows;
mod kv_pages;
mod machines;
mod primitive;
mod rotary;
mod row_wise;
mod support;
