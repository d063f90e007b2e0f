"""Go's readers of YAML and PKCS#8, which Signatory uses, on the files of movers: what they read, is read here as they do."""

import base64
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from host_backend.errors import ConfigError
from host_backend.secret_keys import read_secret_key
from host_backend.yaml_document import Value, load_document
from tests.unit.test_movers import CONFIGURATIONS, MOVERS, by_name, no_password

MODULE = "module movers\n\ngo 1.21\n\nrequire gopkg.in/yaml.v3 v3.0.1\n"
SUMS = (
    "gopkg.in/check.v1 v0.0.0-20161208181325-20d25e280405 h1:yhCVgyC4o1eVCa2tZl7eS0r+SDo693bJlVdllGtEeKM=\n"
    "gopkg.in/check.v1 v0.0.0-20161208181325-20d25e280405/go.mod h1:Co6ibVJAznAaIkqp8huTwlJQCZ016jof/cbN4VW5Yz0=\n"
    "gopkg.in/yaml.v3 v3.0.1 h1:fxVm/GzAzEWqLHuvctI91KS9hhNmmWOoWu0XTYJS7CA=\n"
    "gopkg.in/yaml.v3 v3.0.1/go.mod h1:K4uyk7z7BCEPqu6E+C64Yfv1cQ7kz7rIZviUmN+EgEM=\n"
)
SOURCE = """
package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"

	"gopkg.in/yaml.v3"
)

func main() {
	data, err := os.ReadFile(os.Args[2])
	if err != nil {
		panic(err)
	}
	if os.Args[1] == "yaml" {
		var value map[string]any
		if err := yaml.Unmarshal(data, &value); err != nil {
			fmt.Println("error:", err)
			return
		}
		text, _ := json.Marshal(value)
		fmt.Println(string(text))
		return
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	key, err := x509.ParsePKCS8PrivateKey(data)
	switch key := key.(type) {
	case ed25519.PrivateKey:
		fmt.Printf("%x\\n", key.Seed())
	case *ecdsa.PrivateKey:
		fmt.Printf("%064x\\n", key.D)
	default:
		fmt.Println("error:", err)
	}
}
"""
#: Where readers of YAML differ: tabs, null, texts that look like something else, tags, quotes, ends of lines.
DOCUMENTS = [
    "a: b\t# c\n",
    "a:\tb\n",
    "\t# c\na: b\n",
    "a: b\n \t \nc: d\n",
    "a:\n\tb: c\n",
    "a:\n\t- b\n",
    "{a:\tb,\n\tc: d}",
    "a: ~\nb: Null\nc: nULL\n",
    "a: 'no'\nb: \"\\u00e9\"\nc: a:b\nd: x#y\n",
    "a: !!str 1\n",
    "a: 'x'#y\n",
    "a: b: c\n",
    "a: [b,, c]\n",
    "a: {b: c, d}\n",
    "a: |\n  x\n\ny\n",
    'a: "\\uD800"\n',
    "a: x\u2028b: c\n",
    "a: x\x85b: c\n",
    "\ufeffa: b\r\nc: d\r",
    "a: @x\n",
    "%YAML 1.1\n---\na: b\n",
    "%YAML 9.1\n---\na: b\n",
]
PKCS8 = [item for item in MOVERS["key_files"] if item["name"].startswith(("pkcs8", "version-2"))]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("go")
    for name, text in (("go.mod", MODULE), ("go.sum", SUMS), ("main.go", SOURCE)):
        (folder / name).write_text(text)
    subprocess.run(["go", "build", "-o", "reader", "."], cwd=folder, check=True)
    return folder / "reader"


def read(reader: Path, kind: str, file: Path) -> str:
    return subprocess.run([reader, kind, file], check=True, capture_output=True, text=True).stdout.strip()


def plain(value: Value) -> object:
    """Return a value as Go's JSON has it, scalars as texts."""
    if value.is_map:
        return {name: plain(entry) for name, entry in value.mapping().items()}
    if value.is_list:
        return [plain(item) for item in value.items()]
    return None if value.is_null else value.text()


def as_texts(value: object) -> object:
    """Return Go's value with scalars as this program reads them: texts as they are written."""
    if isinstance(value, dict):
        return {name: as_texts(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [as_texts(item) for item in value]
    return value if value is None or isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("item", CONFIGURATIONS, ids=by_name)
def test_configurations_are_read_alike(reader: Path, item: Mapping[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "signatory.yaml"
    file.write_text(item["text"])
    assert plain(load_document(file)) == as_texts(json.loads(read(reader, "yaml", file)))


@pytest.mark.parametrize("text", DOCUMENTS)
def test_documents_are_read_or_refused_alike(reader: Path, text: str, tmp_path: Path) -> None:
    file = tmp_path / "document.yaml"
    file.write_bytes(text.encode())
    if (theirs := read(reader, "yaml", file)).startswith("error:"):
        with pytest.raises(ConfigError):
            load_document(file)
    else:
        assert plain(load_document(file)) == as_texts(json.loads(theirs))


@pytest.mark.parametrize("item", PKCS8, ids=by_name)
def test_keys_are_read_alike(reader: Path, item: Mapping[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(base64.b64decode(item["base64"]))
    assert read_secret_key(file.read_bytes(), no_password).data.hex() == read(reader, "pkcs8", file)
