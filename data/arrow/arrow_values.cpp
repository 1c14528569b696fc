#include "data/arrow/arrow_values.h"

#include <arrow/array.h>
#include <arrow/extension_type.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/float16.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.h"

namespace qlora::data {
namespace {

using Json = nlohmann::ordered_json;
using arrow::Type;

template <typename ArrayType>
const ArrayType& as(const arrow::Array& array) {
  return static_cast<const ArrayType&>(array);
}

bool is_text(Type::type id) {
  return id == Type::STRING || id == Type::LARGE_STRING || id == Type::STRING_VIEW;
}

Json number(double value) { return std::isnan(value) ? Json(nullptr) : Json(value); }

template <typename ArrayType>
Json integer(const arrow::Array& array, int64_t index) {
  return Json(as<ArrayType>(array).Value(index));
}

template <typename ArrayType>
Json text(const arrow::Array& array, int64_t index) {
  return Json(std::string(as<ArrayType>(array).GetView(index)));
}

template <typename ArrayType>
Json list(const arrow::Array& array, int64_t index) {
  const auto& lists = as<ArrayType>(array);
  const int64_t begin = lists.value_offset(index), length = lists.value_length(index);
  Json values = Json::array();
  for (int64_t i = begin; i < begin + length; ++i) values.push_back(json_value(*lists.values(), i));
  return values;
}

Json object_of_struct(const arrow::StructArray& structs, int64_t index) {
  Json object = Json::object();
  for (int i = 0; i < structs.num_fields(); ++i)
    if (Json value = json_value(*structs.field(i), index); !value.is_null())
      object[structs.struct_type()->field(i)->name()] = std::move(value);
  return object;
}

Json object_of_map(const arrow::MapArray& maps, int64_t index) {
  Json object = Json::object();
  const int64_t begin = maps.value_offset(index), length = maps.value_length(index);
  for (int64_t i = begin; i < begin + length; ++i)
    if (Json value = json_value(*maps.items(), i); !value.is_null())
      object[json_value(*maps.keys(), i).get<std::string>()] = std::move(value);
  return object;
}

// Of bytes only their number.
template <typename ArrayType>
Json number_of_bytes(const arrow::Array& array, int64_t index) {
  return Json(fmt::format("{} bytes", as<ArrayType>(array).GetView(index).size()));
}

Json written_out(const arrow::Array& array, int64_t index) {
  const arrow::Result<std::shared_ptr<arrow::Scalar>> scalar = array.GetScalar(index);
  if (!scalar.ok()) fail<FormatError>("{}", scalar.status().message());
  return Json((*scalar)->ToString());
}

Json simple_value(const arrow::Array& array, int64_t index) {
  switch (array.type_id()) {
    case Type::BOOL:
      return Json(as<arrow::BooleanArray>(array).Value(index));
    case Type::INT8:
      return integer<arrow::Int8Array>(array, index);
    case Type::INT16:
      return integer<arrow::Int16Array>(array, index);
    case Type::INT32:
      return integer<arrow::Int32Array>(array, index);
    case Type::INT64:
      return integer<arrow::Int64Array>(array, index);
    case Type::UINT8:
      return integer<arrow::UInt8Array>(array, index);
    case Type::UINT16:
      return integer<arrow::UInt16Array>(array, index);
    case Type::UINT32:
      return integer<arrow::UInt32Array>(array, index);
    case Type::UINT64:
      return integer<arrow::UInt64Array>(array, index);
    case Type::HALF_FLOAT:
      return number(
          arrow::util::Float16::FromBits(as<arrow::HalfFloatArray>(array).Value(index)).ToDouble());
    case Type::FLOAT:
      return number(double{as<arrow::FloatArray>(array).Value(index)});
    case Type::DOUBLE:
      return number(as<arrow::DoubleArray>(array).Value(index));
    case Type::STRING:
      return text<arrow::StringArray>(array, index);
    case Type::LARGE_STRING:
      return text<arrow::LargeStringArray>(array, index);
    case Type::STRING_VIEW:
      return text<arrow::StringViewArray>(array, index);
    case Type::BINARY:
      return number_of_bytes<arrow::BinaryArray>(array, index);
    case Type::LARGE_BINARY:
      return number_of_bytes<arrow::LargeBinaryArray>(array, index);
    default:
      return written_out(array, index);
  }
}

}  // namespace

bool has_json_counterpart(const arrow::DataType& type) {
  switch (type.id()) {
    case Type::NA:
    case Type::BOOL:
    case Type::INT8:
    case Type::INT16:
    case Type::INT32:
    case Type::INT64:
    case Type::UINT8:
    case Type::UINT16:
    case Type::UINT32:
    case Type::UINT64:
    case Type::HALF_FLOAT:
    case Type::FLOAT:
    case Type::DOUBLE:
    case Type::STRING:
    case Type::LARGE_STRING:
    case Type::STRING_VIEW:
    case Type::DATE32:
    case Type::DATE64:
    case Type::TIME32:
    case Type::TIME64:
    case Type::TIMESTAMP:
    case Type::DECIMAL128:
    case Type::DECIMAL256:
      return true;
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::FIXED_SIZE_LIST:
    case Type::STRUCT:
      return std::ranges::all_of(type.fields(), [](const std::shared_ptr<arrow::Field>& field) {
        return has_json_counterpart(*field->type());
      });
    case Type::MAP: {
      const auto& map = static_cast<const arrow::MapType&>(type);
      return is_text(map.key_type()->id()) && has_json_counterpart(*map.item_type());
    }
    case Type::DICTIONARY:
      return has_json_counterpart(*static_cast<const arrow::DictionaryType&>(type).value_type());
    case Type::EXTENSION:
      return has_json_counterpart(*static_cast<const arrow::ExtensionType&>(type).storage_type());
    default:
      return false;
  }
}

Json json_value(const arrow::Array& array, int64_t index) {
  if (array.IsNull(index)) return nullptr;
  switch (array.type_id()) {
    case Type::NA:
      return nullptr;
    case Type::LIST:
      return list<arrow::ListArray>(array, index);
    case Type::LARGE_LIST:
      return list<arrow::LargeListArray>(array, index);
    case Type::FIXED_SIZE_LIST:
      return list<arrow::FixedSizeListArray>(array, index);
    case Type::STRUCT:
      return object_of_struct(as<arrow::StructArray>(array), index);
    case Type::MAP:
      return object_of_map(as<arrow::MapArray>(array), index);
    case Type::DICTIONARY: {
      const auto& encoded = as<arrow::DictionaryArray>(array);
      return json_value(*encoded.dictionary(), encoded.GetValueIndex(index));
    }
    case Type::EXTENSION:
      return json_value(*as<arrow::ExtensionArray>(array).storage(), index);
    default:
      return simple_value(array, index);
  }
}

}  // namespace qlora::data
