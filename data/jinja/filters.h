// The filters, by what they work on; filters.cpp lists their names.
#pragma once

#include "data/jinja/callables.h"

namespace qlora::data::jinja::filters {

// Text.
Value batch(Runtime&, const Value&, const Arguments&);
Value capitalize(Runtime&, const Value&, const Arguments&);
Value center(Runtime&, const Value&, const Arguments&);
Value escape(Runtime&, const Value&, const Arguments&);
Value force_escape(Runtime&, const Value&, const Arguments&);
Value format(Runtime&, const Value&, const Arguments&);
Value indent(Runtime&, const Value&, const Arguments&);
Value lower(Runtime&, const Value&, const Arguments&);
Value replace(Runtime&, const Value&, const Arguments&);
Value safe(Runtime&, const Value&, const Arguments&);
Value string(Runtime&, const Value&, const Arguments&);
Value title(Runtime&, const Value&, const Arguments&);
Value trim(Runtime&, const Value&, const Arguments&);
Value truncate(Runtime&, const Value&, const Arguments&);
Value upper(Runtime&, const Value&, const Arguments&);
Value wordcount(Runtime&, const Value&, const Arguments&);

// Numbers and single values.
Value absolute(Runtime&, const Value&, const Arguments&);
Value attribute(Runtime&, const Value&, const Arguments&);
Value otherwise(Runtime&, const Value&, const Arguments&);
Value to_float(Runtime&, const Value&, const Arguments&);
Value to_int(Runtime&, const Value&, const Arguments&);
Value round(Runtime&, const Value&, const Arguments&);

// Sequences.
Value first(Runtime&, const Value&, const Arguments&);
Value items(Runtime&, const Value&, const Arguments&);
Value join(Runtime&, const Value&, const Arguments&);
Value last(Runtime&, const Value&, const Arguments&);
Value length(Runtime&, const Value&, const Arguments&);
Value list(Runtime&, const Value&, const Arguments&);
Value map(Runtime&, const Value&, const Arguments&);
Value reject(Runtime&, const Value&, const Arguments&);
Value reject_attribute(Runtime&, const Value&, const Arguments&);
Value reverse(Runtime&, const Value&, const Arguments&);
Value select(Runtime&, const Value&, const Arguments&);
Value select_attribute(Runtime&, const Value&, const Arguments&);
Value slice(Runtime&, const Value&, const Arguments&);
Value sum(Runtime&, const Value&, const Arguments&);

// Orders and groups.
Value dictsort(Runtime&, const Value&, const Arguments&);
Value groupby(Runtime&, const Value&, const Arguments&);
Value max(Runtime&, const Value&, const Arguments&);
Value min(Runtime&, const Value&, const Arguments&);
Value sort(Runtime&, const Value&, const Arguments&);
Value unique(Runtime&, const Value&, const Arguments&);

// The part of each item that an argument such as attribute="function.name" or 0 asks for; the item
// itself if the argument is missing or none. `otherwise` stands in for undefined parts, unless
// Missing.
Value part_of(Runtime& runtime, const Value& item, const Value& path, const Value& otherwise = {});

}  // namespace qlora::data::jinja::filters
