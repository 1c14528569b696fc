// qlora generate.
#pragma once

namespace CLI {
class App;
}

void add_generate_command(CLI::App& app);
