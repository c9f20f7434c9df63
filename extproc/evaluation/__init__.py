"""The offline comparison of estimators on real text and real tokenizers (`dualpool evaluate`)."""
