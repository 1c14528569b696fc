// qlora tokenize: text to token ids and back, the way training and generation do it.
#pragma once

namespace CLI {
class App;
}

void add_tokenize_command(CLI::App& app);
