// Writes the quickstart's task: orders in free text, answered with strict JSON, as chat rows.
//
//   make_orders DIR [--train 600] [--test 40] [--seed 1]     DIR/train.jsonl and DIR/test.jsonl
//
// Both files are drawn from the same distribution and share no text. The same arguments give the
// same bytes.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "base/seed.h"

namespace {

constexpr std::string_view kInstruction =
    "Turn the order into one line of JSON with the keys customer, item, quantity, city and urgent.";

constexpr std::string_view kNames[] = {"Amara", "Bjorn", "Clara", "Dmitri", "Elena", "Farid",
                                       "Greta", "Hugo",  "Ines",  "Jonas",  "Karin", "Luca",
                                       "Mina",  "Nadia", "Omar",  "Petra",  "Rosa",  "Samir",
                                       "Tess",  "Vera",  "Wendy", "Yusuf"};
constexpr std::string_view kCities[] = {"Athens", "Bergen",  "Boston",  "Cairo",   "Dublin",
                                        "Geneva", "Hamburg", "Lima",    "Madrid",  "Naples",
                                        "Osaka",  "Prague",  "Seville", "Tallinn", "Utrecht",
                                        "Vienna", "Warsaw",  "Toronto", "Zagreb",  "Accra"};
constexpr std::string_view kItems[] = {
    "paper lamps", "steel bolts",   "clay pots",    "winter tyres",  "linen shirts",
    "oak shelves", "printer drums", "bike helmets", "rubber gloves", "kitchen knives",
    "maps",        "wine glasses",  "door handles", "running shoes", "umbrellas",
    "wall clocks", "tents",         "blue folders", "camera lenses", "silk scarves",
    "tool boxes",  "batteries",     "pillows",      "garden chairs"};

struct Quantity {
  int count;
  std::string_view spelled;
};
constexpr Quantity kQuantities[] = {
    {2, "two"},      {3, "three"}, {4, "four"},   {5, "five"}, {6, "six"},
    {7, "seven"},    {8, "eight"}, {9, "nine"},   {10, "ten"}, {11, "eleven"},
    {12, "a dozen"}, {15, "15"},   {18, "18"},    {20, "20"},  {24, "24"},
    {30, "30"},      {36, "36"},   {50, "fifty"}, {75, "75"},  {100, "a hundred"}};

// {0} customer, {1} quantity, {2} item, {3} city, {4} a remark on the date with a space before it,
// or nothing
constexpr std::string_view kRequests[] = {
    "This is {0}, I would like to have {1} {2} sent to {3}.{4}",
    "{0} speaking. The shop in {3} is waiting for {1} {2}.{4}",
    "Could {1} {2} go out to {3}? The bill is for {0}.{4}",
    "We are short of {2} here in {3}: {1} of them, please.{4} Regards, {0}",
    "New order from {0}: {1} {2}, delivery address in {3}.{4}",
    "Good morning!{4} Please put down {1} {2} for {0}, to be delivered in {3}.",
    "{3} calling, {0} is my name. Do you still have {2}? Then I take {1}.{4}",
    "Dear team!{4} Kindly ship {1} {2} to our {3} office. Yours, {0}"};
constexpr std::string_view kUrgent[] = {" It is urgent.", " They must be here tomorrow.",
                                        " Please hurry!", " We cannot wait, send them today.",
                                        " Top priority."};
constexpr std::string_view kNotUrgent[] = {" There is no hurry.", " Take your time.",
                                           " Any day next month will do.", " No rush at all.", ""};

// The choices of one order: each draw takes the next number of the order's own stream.
class Draw {
 public:
  explicit Draw(uint64_t key) : key_(key) {}
  uint64_t below(uint64_t bound) { return qlora::uniform_integer(key_, next_++, bound); }
  template <typename T, size_t N>
  const T& one_of(const T (&list)[N]) {
    return list[below(N)];
  }

 private:
  uint64_t key_;
  uint64_t next_ = 0;
};

struct Order {
  std::string text;
  std::string answer;
};

Order draw_order(uint64_t key) {
  Draw draw(key);
  const std::string_view customer = draw.one_of(kNames), item = draw.one_of(kItems),
                         city = draw.one_of(kCities);
  const Quantity quantity = draw.one_of(kQuantities);
  const std::string count =
      draw.below(2) ? std::string(quantity.spelled) : std::to_string(quantity.count);
  const bool urgent = draw.below(2);
  const std::string_view remark = urgent ? draw.one_of(kUrgent) : draw.one_of(kNotUrgent);
  const nlohmann::ordered_json answer = {{"customer", customer},
                                         {"item", item},
                                         {"quantity", quantity.count},
                                         {"city", city},
                                         {"urgent", urgent}};
  return {fmt::format(fmt::runtime(draw.one_of(kRequests)), customer, count, item, city, remark),
          answer.dump()};
}

class OrderStream {
 public:
  explicit OrderStream(uint64_t seed) : key_(qlora::random_key(seed, "orders")) {}

  // The next order whose text has not come before.
  Order next() {
    for (;;) {
      Order order = draw_order(qlora::random_key(key_, row_++));
      if (seen_.insert(order.text).second) return order;
    }
  }

 private:
  uint64_t key_;
  uint64_t row_ = 0;
  std::set<std::string> seen_;
};

void write_rows(const std::filesystem::path& path, int num_rows, OrderStream& orders) {
  std::ofstream file(path, std::ios::binary);
  for (int i = 0; i < num_rows; ++i) {
    const Order order = orders.next();
    const nlohmann::ordered_json row = {{"messages",
                                         {{{"role", "system"}, {"content", kInstruction}},
                                          {{"role", "user"}, {"content", order.text}},
                                          {{"role", "assistant"}, {"content", order.answer}}}}};
    file << row.dump() << '\n';
  }
  file.close();
  if (!file)
    qlora::fail<qlora::IoError>("{} could not be written: is the disk full?", path.string());
  fmt::print("{}: {} rows\n", path.string(), num_rows);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes the quickstart's orders: DIR/train.jsonl and DIR/test.jsonl");
  std::string dir;
  int num_train = 600, num_test = 40;
  uint64_t seed = 1;
  app.add_option("DIR", dir, "Folder for the two files; made if missing")->required();
  app.add_option("--train", num_train, "Rows to train on")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--test", num_test, "Rows held out")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--seed", seed, "Another seed, other orders")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    std::filesystem::create_directories(dir);
    OrderStream orders(seed);
    write_rows(std::filesystem::path(dir) / "train.jsonl", num_train, orders);
    write_rows(std::filesystem::path(dir) / "test.jsonl", num_test, orders);
  } catch (const std::exception& error) {
    fmt::print(stderr, "make_orders: {}\n", error.what());
    return 1;
  }
}
