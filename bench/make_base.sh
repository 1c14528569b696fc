# To be sourced by the scripts here, which name the folder of programs in $bin.

# make_base BASE TOKENIZER CONFIG [OPTION...]: made weights in BASE, unless it is there; CONFIG: the text of config.json; further options of
# made_base.
make_base() {
  local base=$1 tokenizer=$2 config=$3
  shift 3
  [ ! -d "$base" ] || return 0
  mkdir -p "$base.shape"
  echo "$config" >"$base.shape/config.json"
  "$bin/made_base" --config "$base.shape/config.json" --tokenizer "$tokenizer" --output "$base" "$@"
}
