//! Files that are damaged, or made to do harm, are refused in words.

use std::fs;

use centuple_onnx::File;
use centuple_onnx::import::{ImportOptions, Imported, import};
use centuple_onnx::proto::tensor_proto::{DataLocation, DataType};
use centuple_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use centuple_testkit::{OnnxGolden, Random};
use prost::Message;

fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    NodeProto {
        op_type: op.to_owned(),
        input: texts(inputs),
        output: texts(outputs),
        attribute: attributes,
        ..NodeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: Some(value), ..AttributeProto::default() }
}

fn branch(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto { name: name.to_owned(), g: Some(graph), ..AttributeProto::default() }
}

fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: DataType::Int64 as i32,
        dims: vec![values.len() as i64],
        int64_data: values.to_vec(),
        ..TensorProto::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() }
}

/// A model whose input is `input_ids` and whose output is `logits`; `f` is the ids as floats.
fn model(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let dim = |name: &str| tensor_shape_proto::Dimension {
        value: Some(tensor_shape_proto::dimension::Value::DimParam(name.to_owned())),
        ..tensor_shape_proto::Dimension::default()
    };
    let shape = TensorShapeProto { dim: vec![dim("batch"), dim("sequence")] };
    let kind = type_proto::Tensor { elem_type: DataType::Int64 as i32, shape: Some(shape) };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..TypeProto::default() };
    let cast = node("Cast", &["input_ids"], &["f"], vec![int("to", 1)]);
    let graph = GraphProto {
        node: [vec![cast], nodes].concat(),
        initializer,
        input: vec![ValueInfoProto { r#type: Some(kind), ..value("input_ids") }],
        output: vec![value("logits")],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: 8,
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..ModelProto::default()
    }
}

fn imported(bytes: Vec<u8>) -> Result<Imported, String> {
    let file = File::from_bytes("file", bytes).map_err(|error| error.to_string())?;
    import(&file, &ImportOptions::default()).map_err(|error| error.to_string())
}

fn refused(model: &ModelProto, words: &str) {
    match imported(model.encode_to_vec()) {
        Ok(_) => panic!("imported, not refused with `{words}`"),
        Err(message) => assert!(message.contains(words), "`{message}` doesn't say `{words}`"),
    }
}

#[test]
fn a_sound_model_is_imported() {
    let sound = imported(model(vec![node("Sqrt", &["f"], &["logits"], vec![])], vec![]).encode_to_vec());
    assert_eq!(sound.expect("a sound model").outputs.len(), 1);
}

#[test]
fn graphs_that_make_no_sense_are_refused() {
    let add = |a: &str, b: &str, c: &str| node("Add", &[a, b], &[c], vec![]);
    refused(&model(vec![add("f", "b", "a"), add("a", "a", "b"), add("b", "f", "logits")], vec![]), "cyclic");
    refused(&model(vec![add("f", "nowhere", "logits")], vec![]), "`nowhere`, which nothing yields");
    refused(&model(vec![add("f", "f", "a")], vec![]), "nothing yields the output `logits`");
    refused(&model(vec![add("f", "f", "logits"), add("f", "f", "logits")], vec![]), "two values are called `logits`");
    let unknown = NodeProto { domain: "acme".to_owned(), ..node("Fancy", &["f"], &["logits"], vec![]) };
    refused(&model(vec![unknown], vec![]), "operator acme.Fancy of node `logits` (opset 17)");
    refused(&model(vec![node("Loop", &["f"], &["logits"], vec![])], vec![]), "Loop");
    refused(&ModelProto { graph: None, ..model(vec![], vec![]) }, "no graph");
    let old = vec![OperatorSetIdProto { domain: String::new(), version: 6 }];
    refused(&ModelProto { opset_import: old, ..model(vec![], vec![]) }, "opset 6");
    refused(&ModelProto { opset_import: vec![], ..model(vec![], vec![]) }, "which version");
    assert!(imported(Vec::new()).is_err_and(|message| message.contains("empty")));
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let at = |op: &str, inputs: &[&str], attributes| {
        model(vec![node(op, inputs, &["logits"], attributes)], vec![integers("c", &[5, -7])])
    };
    for (op, inputs, attributes) in [
        ("Transpose", &["f"][..], vec![AttributeProto { ints: vec![0, 0], ..int("perm", 0) }]),
        ("Gather", &["c", "c"], vec![int("axis", 9)]),
        ("Reshape", &["f", "c"], vec![]),
        ("Expand", &["f", "c"], vec![]),
        ("Concat", &["f", "c"], vec![int("axis", i64::MIN)]),
        ("Split", &["f"], vec![int("axis", 1)]),
        ("Slice", &["f", "c", "c", "c", "c"], vec![]),
        ("MatMul", &["f", "c"], vec![]),
        ("Softmax", &["f"], vec![int("axis", i64::MAX)]),
        ("Range", &["c", "c", "c"], vec![]),
        ("Squeeze", &["f", "c"], vec![]),
        ("Unsqueeze", &["f", "c"], vec![]),
        ("LayerNormalization", &["f", "c"], vec![]),
        ("Cast", &["f"], vec![int("to", 99)]),
        ("Add", &["f"], vec![]),
        ("Tile", &["f", "c"], vec![]),
        ("Pad", &["f", "c"], vec![]),
        ("Einsum", &["f", "f"], vec![]),
        ("DequantizeLinear", &["c", "c"], vec![int("axis", -9)]),
        ("ConstantOfShape", &["c"], vec![]),
        ("GatherND", &["f", "c"], vec![int("batch_dims", 7)]),
        ("CumSum", &["f", "c"], vec![]),
    ] {
        if let Ok(sound) = imported(at(op, inputs, attributes).encode_to_vec()) {
            sound.graph.verify().expect("what is imported is sound");
        }
    }
}

#[test]
fn huge_sizes_are_refused() {
    let constant = |sizes: &[i64]| {
        let nodes =
            vec![node("ConstantOfShape", &["s"], &["x"], vec![]), node("Add", &["f", "x"], &["logits"], vec![])];
        model(nodes, vec![integers("s", sizes)])
    };
    refused(&constant(&[1 << 40, 1 << 20]), "ConstantOfShape");
    refused(&constant(&[1 << 20, 1 << 14]), "ConstantOfShape");
    refused(&constant(&[-1, 3]), "is no shape");
    // Each doubles what the one before yields.
    for first in ["f", "s"] {
        let double = |level: usize| {
            let (from, to) = (format!("x{level}"), format!("x{}", level + 1));
            node("Concat", &[&from, &from], &[&to], vec![int("axis", 0)])
        };
        let mut nodes = vec![node("Identity", &[first], &["x0"], vec![])];
        nodes.extend((0..60).map(double));
        nodes.push(node("ReduceSum", &["x60"], &["sum"], vec![int("keepdims", 0)]));
        nodes.push(node("Add", &["f", "sum"], &["logits"], vec![]));
        let doubled = imported(model(nodes, vec![integers("s", &[1; 8])]).encode_to_vec());
        assert!(doubled.is_err() || first == "f");
    }
    let square = |level: usize| {
        let (from, to) = (format!("x{level}"), format!("x{}", level + 1));
        node("MatMul", &[&from, &from], &[&to], vec![])
    };
    let mut nodes = vec![node("ConstantOfShape", &["s"], &["x0"], vec![])];
    nodes.extend((0..200).map(square));
    nodes.push(node("ReduceSum", &["x200"], &["sum"], vec![int("keepdims", 0)]));
    nodes.push(node("Add", &["f", "sum"], &["logits"], vec![]));
    refused(&model(nodes, vec![integers("s", &[4096, 4096])]), "more than the file's size allows for");
}

#[test]
fn deep_and_recursive_files_are_refused() {
    let last = || GraphProto {
        node: vec![node("Identity", &["c"], &["o"], vec![])],
        output: vec![value("o")],
        ..GraphProto::default()
    };
    let mut inner = last();
    for _ in 0..60 {
        let branches = vec![branch("then_branch", inner), branch("else_branch", last())];
        inner = GraphProto {
            node: vec![node("If", &["c"], &["o"], branches)],
            output: vec![value("o")],
            ..GraphProto::default()
        };
    }
    let branches = vec![branch("then_branch", inner), branch("else_branch", last())];
    refused(&model(vec![node("If", &["c"], &["logits"], branches)], vec![integers("c", &[1])]), "nested too deeply");

    let call =
        |name: &str, from: &str, to: &str| NodeProto { domain: "own".to_owned(), ..node(name, &[from], &[to], vec![]) };
    let function = |name: &str, nodes: Vec<NodeProto>| FunctionProto {
        name: name.to_owned(),
        domain: "own".to_owned(),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: nodes,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..FunctionProto::default()
    };
    let mut endless = model(vec![call("again", "f", "logits")], vec![]);
    endless.functions = vec![function("again", vec![call("again", "x", "y")])];
    refused(&endless, "nested more than");
    // Thirty functions that call the next one twice are a billion nodes.
    let mut wide = model(vec![call("f0", "f", "logits")], vec![]);
    wide.functions = (0..30)
        .map(|level| {
            let next = format!("f{}", level + 1);
            function(&format!("f{level}"), vec![call(&next, "x", "z"), call(&next, "z", "y")])
        })
        .collect();
    wide.functions.push(function("f30", vec![node("Identity", &["x"], &["y"], vec![])]));
    refused(&wide, "500000 nodes");
}

#[test]
fn damaged_tensors_are_refused() {
    let with = |tensor: TensorProto| model(vec![node("Add", &["f", "c"], &["logits"], vec![])], vec![tensor]);
    let base = || TensorProto { name: "c".to_owned(), data_type: DataType::Float as i32, ..TensorProto::default() };
    let raw = |length: usize| vec![0u8; length].into();
    refused(&with(TensorProto { dims: vec![2], raw_data: raw(7), ..base() }), "`c` of shape [2] needs 8 bytes, not 7");
    refused(&with(TensorProto { dims: vec![-2], raw_data: raw(8), ..base() }), "negative dimension");
    refused(&with(TensorProto { dims: vec![1 << 40, 1 << 40], ..base() }), "beyond the address space");
    refused(&with(TensorProto { dims: vec![1 << 40], ..base() }), "another number of them");
    refused(&with(TensorProto { dims: vec![2], float_data: vec![1.0], ..base() }), "another number of them");
    refused(&with(TensorProto { dims: vec![1], data_type: 77, ..base() }), "unknown type 77");
    refused(&with(TensorProto { dims: vec![1], data_type: DataType::String as i32, ..base() }), "STRING");
    let twice =
        model(vec![node("Add", &["f", "c"], &["logits"], vec![])], vec![integers("c", &[1]), integers("c", &[1])]);
    refused(&twice, "two values are called `c`");
}

#[test]
fn external_data_stays_in_the_folder() {
    let outside = tempfile::tempdir().expect("temporary folders can be made");
    let folder = tempfile::tempdir().expect("temporary folders can be made");
    let place = |name: &str| folder.path().join(name);
    fs::write(outside.path().join("secret"), [0; 8]).expect("it can be written");
    fs::write(place("weights"), [0; 8]).expect("it can be written");
    let tensor = |entries: &[(&str, &str)]| TensorProto {
        name: "c".to_owned(),
        dims: vec![2],
        data_type: DataType::Float as i32,
        data_location: DataLocation::External as i32,
        external_data: entries
            .iter()
            .map(|&(key, value)| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() })
            .collect(),
        ..TensorProto::default()
    };
    let answer = |entries: &[(&str, &str)]| {
        let nodes = vec![
            node("ReduceSum", &["c"], &["sum"], vec![int("keepdims", 0)]),
            node("Add", &["f", "sum"], &["logits"], vec![]),
        ];
        fs::write(place("model.onnx"), model(nodes, vec![tensor(entries)]).encode_to_vec()).expect("it can be written");
        let file = File::open(&place("model.onnx")).expect("a sound file");
        import(&file, &ImportOptions::default()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(answer(&[("location", "weights")]), Ok(()));
    assert_eq!(answer(&[("location", "./weights"), ("offset", "0"), ("length", "8")]), Ok(()));
    let secret = outside.path().join("secret").display().to_string();
    let mut cases = vec![
        (vec![("location", secret.as_str())], "outside of the model's folder"),
        (vec![("location", "../secret")], "outside of the model's folder"),
        (vec![("location", "")], "outside of the model's folder"),
        (vec![], "without a location"),
        (vec![("location", "missing")], "can't be read"),
        (vec![("location", "weights"), ("offset", "4")], "which has 8"),
        (vec![("location", "weights"), ("offset", "18446744073709551615")], "which has 8"),
        (vec![("location", "weights"), ("length", "4")], "another length"),
        (vec![("location", "weights"), ("offset", "-1")], "strange offset"),
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path().join("secret"), place("link")).expect("links can be made");
        cases.push((vec![("location", "link")], "leads out of the model's folder"));
    }
    for (entries, words) in cases {
        let message = answer(&entries).expect_err("it is refused");
        assert!(message.contains(words), "`{message}` doesn't say `{words}`");
    }
}

/// A folder of links, as the hub's cache is.
#[cfg(unix)]
#[test]
fn external_data_may_lie_where_the_model_really_is() {
    use std::os::unix::fs::symlink;

    let root = tempfile::tempdir().expect("temporary folders can be made");
    let [blobs, snapshot] = ["blobs", "snapshots"].map(|name| root.path().join(name));
    for folder in [&blobs, &snapshot] {
        fs::create_dir(folder).expect("it can be made");
    }
    let external = TensorProto {
        data_location: DataLocation::External as i32,
        int64_data: Vec::new(),
        external_data: vec![StringStringEntryProto { key: "location".to_owned(), value: "data".to_owned() }],
        ..integers("c", &[1])
    };
    let nodes = vec![node("Add", &["f", "c"], &["logits"], vec![])];
    fs::write(blobs.join("one"), model(nodes, vec![external]).encode_to_vec()).expect("it can be written");
    fs::write(blobs.join("two"), [0; 8]).expect("it can be written");
    symlink("../blobs/one", snapshot.join("model.onnx")).expect("links can be made");
    symlink("../blobs/two", snapshot.join("data")).expect("links can be made");
    let file = File::open(&snapshot.join("model.onnx")).expect("a sound file");
    import(&file, &ImportOptions::default()).expect("its data lies beside it");
}

#[test]
fn many_small_messages_take_no_more_memory_than_their_length_allows_for() {
    // A graph of empty nodes: two bytes each, some hundred in memory.
    let nodes = [0x0a, 0x00].repeat(4 << 20);
    let mut bytes = vec![0x3a];
    prost::encoding::encode_varint(nodes.len() as u64, &mut bytes);
    bytes.extend(nodes);
    let message = imported(bytes).expect_err("it is refused");
    assert!(message.contains("far more memory"), "{message}");
    // Messages within messages, without end.
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x2a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend(&bytes);
        bytes = outer;
    }
    assert!(imported([&[0x3a, 0x04, 0x0a, 0x02, 0x2a, 0x00][..], &bytes].concat()).is_err());
}

#[test]
fn damaged_files_are_refused_or_sound() {
    let families = OnnxGolden::all().expect("the fixtures are there");
    let bert = families.iter().find(|family| family.name == "bert").expect("BERT is there");
    let mut random = Random::new(5);
    for case in bert.cases.iter().step_by(6) {
        let bytes = fs::read(bert.path(case)).expect("the file is there");
        for cut in 0..20 {
            let _ = imported(bytes[..bytes.len() * cut / 20].to_vec());
        }
        for _ in 0..40 {
            let mut damaged = bytes.clone();
            for _ in 0..3 {
                let place = (random.float().abs() * damaged.len() as f32) as usize % damaged.len();
                damaged[place] ^= 1 << (place % 8);
            }
            if let Ok(sound) = imported(damaged) {
                sound.graph.verify().expect("what is imported is sound");
            }
        }
    }
}
