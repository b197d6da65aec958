//! The messages of `proto/`.

#![allow(missing_docs, unreachable_pub, dead_code, clippy::all)]

/// Of the Open Inference Protocol and Triton.
pub(crate) mod inference {
    tonic::include_proto!("inference");
}

/// Of text-embeddings-inference.
pub(crate) mod tei {
    tonic::include_proto!("tei.v1");
}

/// All of them and the services, as `google.protobuf.FileDescriptorSet`.
pub(crate) const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
